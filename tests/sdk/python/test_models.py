"""The list of models, and the legacy completions."""

import openai
import pytest


def test_the_list_holds_what_the_key_may_call(client):
    names = {model.id for model in client.models.list()}
    assert {"gpt-main", "gpt-slow", "embed-small"} <= names
    assert not any("*" in name for name in names), "a wildcard is no model's name"
    narrow = client.with_options(api_key="sk-weir-narrow")
    assert {model.id for model in narrow.models.list()} == {"gpt-main"}


def test_a_model_is_found_by_its_name(client):
    model = client.models.retrieve("gpt-main")
    assert (model.id, model.object) == ("gpt-main", "model")


def test_a_model_that_is_not_there_is_a_not_found_error(client):
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("nobody-knows-this")
    assert caught.value.code == "model_not_found"


def test_a_legacy_completion_is_answered_whole_and_streamed(client):
    ask = {"model": "openai/gpt-3.5-turbo-instruct", "prompt": "hello there"}
    whole = client.completions.create(**ask)
    assert whole.object == "text_completion"
    assert "hello there" in whole.choices[0].text
    assert whole.usage.total_tokens > 0
    pieces = [chunk.choices[0].text for chunk in client.completions.create(**ask, stream=True) if chunk.choices]
    assert "".join(pieces) == whole.choices[0].text
