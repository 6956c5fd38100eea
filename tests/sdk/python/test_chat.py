"""Chat completions through the official OpenAI client, with an OpenAI and an Anthropic provider behind Weir."""

import asyncio
import base64
import json
from typing import Literal

import pytest
from pydantic import BaseModel

from conftest import CLAUDE, NOTHING, OPENAI, SANE_ID, TIME, WEATHER, says

PIXEL = base64.b64encode(
    bytes.fromhex(
        "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c489"
        "0000000d49444154789c6360000002000001e221bc330000000049454e44ae426082"
    )
).decode()


def test_a_whole_answer_has_text_finish_and_usage(client, provider):
    answer = client.chat.completions.create(model=provider.model, messages=says("hello there"))
    assert answer.object == "chat.completion"
    assert answer.id and answer.created > 1_700_000_000
    [choice] = answer.choices
    assert choice.message.role == "assistant"
    assert choice.message.content == "You said: hello there"
    assert choice.finish_reason == "stop"
    assert not choice.message.tool_calls
    assert answer.usage.prompt_tokens > 0 and answer.usage.completion_tokens > 0
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_an_answer_says_where_it_came_from(client, provider):
    raw = client.chat.completions.with_raw_response.create(model=provider.model, messages=says("hello"))
    headers = raw.headers
    assert SANE_ID.match(headers["x-request-id"])
    assert headers["x-weir-provider"] == provider.name
    assert headers["x-weir-credential"] in ("oa-1", "an-1")
    assert headers["x-weir-attempts"] == "1"
    assert int(headers["x-weir-overhead-us"]) >= 0
    assert headers["x-weir-model"]


def test_a_request_id_of_the_callers_comes_back(client, provider):
    mine = {"x-request-id": "mine-1234"}
    raw = client.chat.completions.with_raw_response.create(model=provider.model, messages=says("hi"), extra_headers=mine)
    assert raw.headers["x-request-id"] == "mine-1234"


def test_a_stream_is_the_whole_answer_in_pieces(client, provider):
    stream = client.chat.completions.create(model=provider.model, messages=says("one two three four"), stream=True)
    chunks = list(stream)
    assert len({chunk.id for chunk in chunks}) == 1
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    assert deltas[0].role == "assistant"
    assert "".join(delta.content or "" for delta in deltas) == "You said: one two three four"
    reasons = [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices]
    assert [reason for reason in reasons if reason] == ["stop"] and reasons[-1] == "stop"
    assert all(chunk.usage is None for chunk in chunks), "usage was not asked for"


def test_a_stream_ends_with_its_usage_when_it_was_asked_for(client, provider):
    whole = client.chat.completions.create(model=provider.model, messages=says("count these words"))
    asked = {"stream": True, "stream_options": {"include_usage": True}}
    chunks = list(client.chat.completions.create(model=provider.model, messages=says("count these words"), **asked))
    assert [bool(chunk.usage) for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    last = chunks[-1]
    assert last.choices == []
    assert last.usage.prompt_tokens == whole.usage.prompt_tokens
    assert last.usage.completion_tokens == whole.usage.completion_tokens


def test_the_stream_helper_collects_the_same_answer(client, provider):
    with client.chat.completions.stream(model=provider.model, messages=says("hello there")) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_completion()
    assert "content.delta" in kinds and "content.done" in kinds
    assert final.choices[0].message.content == "You said: hello there"
    assert final.choices[0].finish_reason == "stop"


def test_max_tokens_ends_an_answer_with_length(client, provider):
    answer = client.chat.completions.create(model=provider.model, messages=says("a b c d"), max_completion_tokens=2)
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 2


def test_a_stop_sequence_ends_an_answer(client, provider):
    answer = client.chat.completions.create(model=provider.model, messages=says("red green blue"), stop=["green"])
    assert answer.choices[0].finish_reason == "stop"
    assert answer.choices[0].message.content.rstrip() == "You said: red"


def test_a_tool_is_called_with_its_arguments(client, provider):
    answer = client.chat.completions.create(
        model=provider.model, messages=says("the weather in Rome please"), tools=[WEATHER, TIME]
    )
    [choice] = answer.choices
    assert choice.finish_reason == "tool_calls"
    [call] = choice.message.tool_calls
    assert call.id and call.type == "function" and call.function.name == "weather"
    assert isinstance(json.loads(call.function.arguments)["city"], str)


def test_a_tool_without_parameters_is_called_with_an_empty_object(client, provider):
    for stream in (False, True):
        calls = tool_calls(client, provider.model, "ping it", [NOTHING], stream)
        assert [(call["name"], json.loads(call["arguments"])) for call in calls] == [("ping", {})]


def test_parallel_calls_keep_their_ids_indices_and_arguments_in_a_stream(client, provider):
    calls = tool_calls(client, provider.model, "weather clock weather", [WEATHER, TIME], stream=True)
    assert [call["name"] for call in calls] == ["weather", "clock", "weather"]
    assert len({call["id"] for call in calls}) == 3
    for call, field in zip(calls, ["city", "zone", "city"], strict=True):
        assert isinstance(json.loads(call["arguments"])[field], str)


def test_parallel_calls_can_be_forbidden(client, provider):
    answer = client.chat.completions.create(
        model=provider.model, messages=says("weather clock"), tools=[WEATHER, TIME], parallel_tool_calls=False
    )
    assert len(answer.choices[0].message.tool_calls) == 1


@pytest.mark.parametrize(
    ("choice", "called"),
    [("none", []), ("required", ["weather"]), ({"type": "function", "function": {"name": "clock"}}, ["clock"])],
    ids=["none", "required", "named"],
)
def test_the_choice_of_tools_is_the_callers(client, provider, choice, called):
    answer = client.chat.completions.create(
        model=provider.model, messages=says("hello"), tools=[WEATHER, TIME], tool_choice=choice
    )
    assert [call.function.name for call in answer.choices[0].message.tool_calls or []] == called


def test_a_tools_result_is_answered(client, provider):
    messages = says("weather clock")
    first = client.chat.completions.create(model=provider.model, messages=messages, tools=[WEATHER, TIME])
    message = first.choices[0].message
    messages.append(message.model_dump(exclude_none=True))
    for call in message.tool_calls:
        messages.append({"role": "tool", "tool_call_id": call.id, "content": f"{call.function.name} is fine"})
    second = client.chat.completions.create(model=provider.model, messages=messages, tools=[WEATHER, TIME])
    assert second.choices[0].finish_reason == "stop"
    assert "clock is fine" in second.choices[0].message.content


class Street(BaseModel):
    name: str
    number: int


class Address(BaseModel):
    street: Street
    kind: Literal["home", "work"]


class Person(BaseModel):
    name: str
    addresses: list[Address]
    employer: Address | None


def test_a_nested_schema_is_answered_as_it_says(client, provider):
    assert "$defs" in Person.model_json_schema()
    answer = client.chat.completions.parse(
        model=provider.model, messages=says("who is Ada of London"), response_format=Person
    )
    person = answer.choices[0].message.parsed
    assert isinstance(person, Person)
    assert isinstance(person.addresses[0].street.number, int)


def test_a_nested_schema_is_streamed_as_it_says(client, provider):
    ask = client.chat.completions.stream(model=provider.model, messages=says("who is Ada"), response_format=Person)
    with ask as stream:
        for _ in stream:
            pass
        final = stream.get_final_completion()
    assert isinstance(final.choices[0].message.parsed, Person)


def test_an_image_reaches_the_provider(client, provider, simulator):
    parts = [
        {"type": "text", "text": "what is this"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}},
    ]
    answer = client.chat.completions.create(model=provider.model, messages=[{"role": "user", "content": parts}])
    assert answer.choices[0].message.content == "You said: what is this"
    image = simulator.last(provider.wire)["messages"][-1]["content"][1]
    if provider is CLAUDE:
        assert image["source"] == {"type": "base64", "media_type": "image/png", "data": PIXEL}
    else:
        assert image == parts[1]


def test_an_image_by_address_stays_an_address(client, simulator):
    url = "https://example.com/cat.png"
    parts = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "what is this"}]
    client.chat.completions.create(model=CLAUDE.model, messages=[{"role": "user", "content": parts}])
    image = simulator.last(CLAUDE.wire)["messages"][-1]["content"][0]
    assert image["source"] == {"type": "url", "url": url}


def test_the_system_prompt_reaches_the_provider(client, provider, simulator):
    messages = [{"role": "system", "content": "be brief"}, *says("hello")]
    client.chat.completions.create(model=provider.model, messages=messages)
    sent = simulator.last(provider.wire)
    if provider is CLAUDE:
        assert "be brief" in json.dumps(sent["system"])
        assert [message["role"] for message in sent["messages"]] == ["user"]
    else:
        assert sent["messages"] == messages


def test_what_weir_does_not_know_reaches_an_openai_provider_unchanged(client, simulator):
    extra = {"brand_new_field": {"deep": [1, {"x": None}]}, "seed": 123456789012345}
    client.chat.completions.create(model=OPENAI.model, messages=says("hello"), extra_body=extra)
    sent = simulator.last(OPENAI.wire)
    assert {name: sent[name] for name in extra} == extra


def test_reasoning_comes_as_text_whole_and_streamed(client):
    model = CLAUDE.model
    ask = {"model": model, "messages": says("think about it"), "reasoning_effort": "medium", "max_tokens": 4000}
    whole = client.chat.completions.create(**ask).choices[0].message
    assert whole.reasoning_content.startswith("Let me think about:")
    [block] = whole.thinking_blocks
    assert block["type"] == "thinking" and block["thinking"] == whole.reasoning_content and block["signature"]
    deltas = [chunk.choices[0].delta for chunk in client.chat.completions.create(**ask, stream=True) if chunk.choices]
    assert "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas) == whole.reasoning_content
    assert "".join(delta.content or "" for delta in deltas) == whole.content
    blocks = [block for delta in deltas for block in getattr(delta, "thinking_blocks", None) or []]
    assert [block["signature"] for block in blocks] == [block["signature"]]


def test_reasoning_of_a_compatible_host_passes_through(client):
    answer = client.chat.completions.create(
        model=OPENAI.faulty("reasoning"), messages=says("think"), reasoning_effort="medium"
    )
    assert answer.choices[0].message.reasoning_content


def test_signatures_come_back_to_the_provider_over_three_turns(client, simulator):
    ask = {"model": CLAUDE.model, "tools": [WEATHER], "reasoning_effort": "medium", "max_tokens": 4000}
    messages, given = [], []
    for turn in range(3):
        messages += says(f"weather for turn {turn}")
        message = answered(client, messages, given, **ask)
        [call] = message.tool_calls
        messages.append({"role": "tool", "tool_call_id": call.id, "content": f"sunny {turn}"})
        assert f"sunny {turn}" in answered(client, messages, given, **ask).content
        assert thinking_signatures(simulator.last(CLAUDE.wire)) == given[:-1], f"turn {turn}"
    assert len(given) == 6 and len(set(given)) > 1


def answered(client, messages: list, given: list, **ask):
    """Asks, and hands the answer back unchanged, as a caller should; its signatures go to `given`."""
    message = client.chat.completions.create(messages=messages, **ask).choices[0].message
    messages.append(message.model_dump(exclude_none=True))
    given += [block["signature"] for block in message.thinking_blocks]
    return message


def test_a_caller_that_drops_the_signatures_is_still_answered(client):
    messages = says("weather please")
    ask = {"model": CLAUDE.model, "tools": [WEATHER], "reasoning_effort": "medium", "max_tokens": 4000}
    message = client.chat.completions.create(messages=messages, **ask).choices[0].message
    [call] = message.tool_calls
    messages.append({"role": "assistant", "tool_calls": [call.model_dump()]})
    messages.append({"role": "tool", "tool_call_id": call.id, "content": "sunny"})
    assert "sunny" in client.chat.completions.create(messages=messages, **ask).choices[0].message.content


async def test_the_async_client_is_served_many_at_once(async_client, provider):
    async def ask(n: int) -> str:
        answer = await async_client.chat.completions.create(model=provider.model, messages=says(f"number {n}"))
        return answer.choices[0].message.content

    assert await asyncio.gather(*map(ask, range(20))) == [f"You said: number {n}" for n in range(20)]


async def test_the_async_client_streams(async_client, provider):
    stream = await async_client.chat.completions.create(model=provider.model, messages=says("a b c"), stream=True)
    text = [chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices]
    assert "".join(text) == "You said: a b c"


def test_an_empty_model_is_the_tenants_default(client):
    raw = client.chat.completions.with_raw_response.create(model="default", messages=says("hello"))
    assert raw.headers["x-weir-model"] == "gpt-main"


def test_a_configured_name_is_answered_under_that_name(client):
    answer = client.chat.completions.create(model="gpt-main", messages=says("hello"))
    assert answer.model == "gpt-main"


def tool_calls(client, model: str, text: str, tools: list, stream: bool) -> list[dict]:
    answer = client.chat.completions.create(model=model, messages=says(text), tools=tools, stream=stream)
    if not stream:
        calls = answer.choices[0].message.tool_calls
        return [{"id": c.id, "name": c.function.name, "arguments": c.function.arguments} for c in calls]
    calls: dict[int, dict] = {}
    for chunk in answer:
        for part in (chunk.choices[0].delta.tool_calls or []) if chunk.choices else []:
            call = calls.setdefault(part.index, {"id": part.id, "name": part.function.name, "arguments": ""})
            assert part.id in (None, call["id"]), "a call's id never changes"
            call["arguments"] += part.function.arguments or ""
    assert list(calls) == list(range(len(calls)))
    return list(calls.values())


def thinking_signatures(sent: dict) -> list[str]:
    blocks = [block for message in sent["messages"] for block in message["content"] if isinstance(block, dict)]
    return [block["signature"] for block in blocks if block["type"] == "thinking"]
