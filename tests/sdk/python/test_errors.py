"""Every failure is the official client's own typed exception, with a string for a code."""

import httpx
import openai
import pytest

from conftest import OPENAI, says


def fails(client, error: type, model: str, **more) -> openai.APIStatusError:
    with pytest.raises(error) as caught:
        client.chat.completions.create(model=model, messages=says("hello"), **more)
    failure = caught.value
    assert type(failure) is error
    assert failure.message
    assert isinstance(failure.code, str | None)
    assert isinstance(failure.body, dict) and failure.body["type"]
    assert failure.response.headers["x-request-id"]
    return failure


def kind(failure: openai.APIStatusError) -> str:
    return failure.response.headers["x-weir-error"]


@pytest.mark.parametrize("key", ["sk-weir-nobody", "sk-weir-expired", "not a key"])
def test_a_key_that_opens_nothing_is_an_authentication_error(client, key):
    failure = fails(client.with_options(api_key=key), openai.AuthenticationError, OPENAI.model)
    assert (kind(failure), failure.code) == ("caller_auth", "invalid_api_key")


def test_an_unknown_model_is_a_not_found_error(client):
    failure = fails(client, openai.NotFoundError, "nobody-knows-this")
    assert (kind(failure), failure.code, failure.param) == ("caller_request", "model_not_found", "model")


def test_a_model_of_another_type_is_a_bad_request(client):
    failure = fails(client, openai.BadRequestError, "embed-small")
    assert (kind(failure), failure.code) == ("caller_request", "wrong_model_type")


def test_a_parameter_that_is_not_allowed_is_a_bad_request_that_names_it(client):
    failure = fails(client, openai.BadRequestError, "gpt-strict", temperature=1.5)
    assert (kind(failure), failure.code, failure.param) == ("caller_request", "invalid_request", "temperature")
    failure = fails(client, openai.BadRequestError, "claude-strict", seed=7)
    assert (kind(failure), failure.code, failure.param) == ("caller_request", "unsupported_parameter", "seed")


def test_a_model_that_the_key_may_not_use_is_a_permission_error(client):
    failure = fails(client.with_options(api_key="sk-weir-narrow"), openai.PermissionDeniedError, OPENAI.model)
    assert (kind(failure), failure.code) == ("policy_forbidden", "model_not_allowed")


def test_a_providers_limit_is_a_rate_limit_error_with_its_delay(client, provider):
    failure = fails(client, openai.RateLimitError, provider.faulty("status=429", "retry_after=7"))
    assert (kind(failure), failure.code) == ("provider_limit", "provider_rate_limited")
    assert failure.response.headers["retry-after"] == "7"


def test_a_providers_bad_request_stays_one(client, provider):
    assert kind(fails(client, openai.BadRequestError, provider.faulty("status=400"))) == "provider_error"


def test_a_providers_unprocessable_entity_stays_one(client, provider):
    fails(client, openai.UnprocessableEntityError, provider.faulty("status=422"))


def test_weirs_own_refused_credential_is_not_the_callers_fault(client, provider):
    failure = fails(client, openai.InternalServerError, provider.faulty("status=401"))
    assert (failure.status_code, kind(failure), failure.code) == (502, "provider_auth", "provider_auth_failed")
    assert "simulated" not in failure.response.text, "no credential is in an answer"


def test_what_a_provider_does_not_permit_keeps_its_status(client, provider):
    failure = fails(client, openai.PermissionDeniedError, provider.faulty("status=403"))
    assert (failure.status_code, kind(failure)) == (403, "provider_error")
    assert "simulated" not in failure.response.text, "no credential is in an answer"


def test_a_providers_failure_is_an_internal_server_error(client, provider):
    for fault in (["status=500"], ["status=503", "html"], ["malformed"]):
        failure = fails(client, openai.InternalServerError, provider.faulty(*fault))
        assert kind(failure) == "provider_error", fault
        assert "<html" not in failure.response.text.lower(), fault


def test_a_provider_that_closes_without_an_answer_is_unreachable(client, provider):
    failure = fails(client, openai.InternalServerError, provider.faulty("close"))
    assert kind(failure) in ("provider_unreachable", "provider_error")
    assert failure.status_code in (502, 503)


def test_a_provider_that_says_nothing_is_a_timeout(client):
    failure = fails(client, openai.InternalServerError, "gpt-slow")
    assert (failure.status_code, kind(failure), failure.code) == (504, "provider_timeout", "provider_timeout")


def test_the_clients_own_timeout_is_its_own(client, provider):
    hurried = client.with_options(timeout=0.3)
    with pytest.raises(openai.APITimeoutError):
        hurried.chat.completions.create(model=provider.faulty("delay=20s"), messages=says("hello"))


def test_an_error_before_any_content_is_a_status(client, provider):
    failure = fails(client, openai.RateLimitError, provider.faulty("error=429"), stream=True)
    assert kind(failure) == "provider_limit"


def test_an_error_after_content_ends_the_stream_with_an_exception(client, provider):
    text, failure = streamed(client, provider.faulty("events=9", "gap=20ms", "error=500", "error_after=3"))
    assert len(text.split()) == 3
    assert failure.message


def test_a_stream_that_is_cut_ends_with_an_exception_and_what_came_before(client, provider):
    for fault in ("cut=4", "end=4"):
        text, failure = streamed(client, provider.faulty("events=9", "gap=20ms", fault))
        assert len(text.split()) == 4, fault
        assert failure is not None


def test_a_request_that_is_not_json_is_a_bad_request(weir):
    for body in (b"", b"{", b"[]", b'{"model": "gpt-main", "model": "gpt-main", "messages": []}', b'"text"'):
        answer = post(weir, body)
        assert answer.status_code == 400, body
        assert answer.headers["x-weir-error"] == "caller_request"
        assert isinstance(answer.json()["error"]["code"], str)


def test_a_path_and_a_method_that_are_not_there_are_openai_shaped(weir):
    authorized = {"authorization": "Bearer sk-weir-sdk"}
    for method, path, status in [("POST", "/v1/nothing", 404), ("DELETE", "/v1/chat/completions", 405)]:
        answer = httpx.request(method, weir.url + path, headers=authorized)
        assert (answer.status_code, answer.headers["x-weir-error"]) == (status, "caller_request")
        assert answer.json()["error"]["message"]


def test_the_clients_own_retries_end_in_success(client, provider):
    patient = client.with_options(max_retries=2)
    model = provider.faulty("status=503", "times=1")
    answer = patient.chat.completions.create(model=model, messages=says("again"))
    assert answer.choices[0].message.content == "You said: again"


def streamed(client, model: str) -> tuple[str, openai.APIError]:
    """What came of a stream that must fail, and how it failed."""
    text = ""
    with pytest.raises(openai.APIError) as caught:
        for chunk in client.chat.completions.create(model=model, messages=says("a b c d e f g h i"), stream=True):
            assert not any(choice.finish_reason for choice in chunk.choices), "a finish was invented"
            text += "".join(choice.delta.content or "" for choice in chunk.choices)
    return text, caught.value


def post(weir, body: bytes) -> httpx.Response:
    headers = {"authorization": "Bearer sk-weir-sdk", "content-type": "application/json"}
    return httpx.post(f"{weir.url}/v1/chat/completions", content=body, headers=headers)
