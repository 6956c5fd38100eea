"""What Weir sends to Anthropic, checked against the request types of Anthropic's own client."""

import json

import pytest
from anthropic.types import message_create_params as anthropic_types

import typed
from conftest import CLAUDE, NOTHING, TIME, WEATHER, says
from test_chat import PIXEL, Person

# What the API took under its first version, and what the client's types have no more.
FIRST_VERSION = "2023-06-01"
SAMPLING = {"temperature", "top_p", "top_k"}

KINDS = anthropic_types.MessageCreateParamsNonStreaming | anthropic_types.MessageCreateParamsStreaming


CALLS = [
    {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Rome"}'}},
    {"id": "call_2", "type": "function", "function": {"name": "clock", "arguments": '{"zone":"UTC"}'}},
]

CASES = {
    "plain": {"messages": says("hello")},
    "streamed": {"messages": says("hello"), "stream": True, "stream_options": {"include_usage": True}},
    "sampling": {
        "messages": says("hello"),
        "temperature": 0.3,
        "stop": ["x", "y"],
        "max_tokens": 50,
        "user": "someone",
        "metadata": {"a": "b"},
    },
    "systems": {
        "messages": [
            {"role": "system", "content": "one"},
            {"role": "developer", "content": [{"type": "text", "text": "two"}]},
            *says("hello"),
        ]
    },
    "two users in a row": {"messages": [*says("one"), *says("two")]},
    "empty texts": {"messages": [*says("one"), {"role": "assistant", "content": ""}, *says("two")]},
    "images": {
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "look"},
                    {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}", "detail": "high"}},
                    {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
                ],
            }
        ]
    },
    "tools": {"messages": says("hello"), "tools": [WEATHER, TIME, NOTHING], "parallel_tool_calls": False},
    "a strict tool": {
        "messages": says("hello"),
        "tools": [{**WEATHER, "function": {**WEATHER["function"], "strict": True}}],
    },
    "a named tool": {
        "messages": says("hello"),
        "tools": [WEATHER],
        "tool_choice": {"type": "function", "function": {"name": "weather"}},
    },
    "no tool": {"messages": says("hello"), "tools": [WEATHER], "tool_choice": "none"},
    "results of tools": {
        "tools": [WEATHER, TIME],
        "messages": [
            *says("weather clock"),
            {"role": "assistant", "content": None, "tool_calls": CALLS},
            {"role": "tool", "tool_call_id": "call_1", "content": "sunny"},
            {"role": "tool", "tool_call_id": "call_2", "content": [{"type": "text", "text": "noon"}]},
            *says("and now"),
        ],
    },
    "a call without arguments": {
        "tools": [NOTHING],
        "messages": [
            *says("ping"),
            {
                "role": "assistant",
                "tool_calls": [{"id": "c", "type": "function", "function": {"name": "ping", "arguments": ""}}],
            },
            {"role": "tool", "tool_call_id": "c", "content": ""},
        ],
    },
    "a schema": {
        "messages": says("hello"),
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "person", "strict": True, "schema": Person.model_json_schema()},
        },
    },
    "reasoning": {"messages": says("hello"), "reasoning_effort": "high", "max_tokens": 9000},
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_sent_is_a_request_of_anthropics_own_types(client, simulator, case):
    ask = json.loads(json.dumps(CASES[case]))
    answer = client.chat.completions.create(model=CLAUDE.model, **ask)
    if ask.get("stream"):
        list(answer)
    assert request_faults(simulator) == []


def test_reasoning_handed_back_is_a_request_of_anthropics_own_types(client, simulator):
    ask = {"model": CLAUDE.model, "tools": [WEATHER], "reasoning_effort": "low", "max_tokens": 9000}
    messages = says("weather")
    message = client.chat.completions.create(messages=messages, **ask).choices[0].message
    messages.append(message.model_dump(exclude_none=True))
    messages.append({"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "sunny"})
    client.chat.completions.create(messages=messages, **ask)
    assert request_faults(simulator) == []
    kinds = [block["type"] for block in simulator.last(CLAUDE.wire)["messages"][1]["content"]]
    assert kinds == ["thinking", "tool_use"]


def test_a_model_that_takes_no_sampling_parameters_gets_none_and_the_caller_is_told(client, simulator):
    raw = client.chat.completions.with_raw_response.create(
        model="claude/claude-opus-4-7", messages=says("hello"), temperature=0.3, top_p=0.9
    )
    assert not SAMPLING & simulator.last(CLAUDE.wire).keys()
    assert set(raw.headers["x-weir-dropped-params"].replace(" ", "").split(",")) == {"temperature", "top_p"}


def test_a_request_that_is_not_of_those_types_is_found():
    good = {"model": "claude-sonnet-4-6", "max_tokens": 1, "messages": [{"role": "user", "content": "hi"}]}
    assert typed.faults(good, KINDS) == []
    bad = [
        good | {"max_tokens": "1"},
        good | {"bogus": 1},
        {"model": "claude-sonnet-4-6", "messages": []},
        good | {"messages": [{"role": "tool", "content": "hi"}]},
        good | {"messages": [{"role": "user", "content": [{"type": "text", "text": "hi", "extra": 1}]}]},
        good | {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
        good | {"tools": [WEATHER]},
        good | {"tool_choice": "auto"},
    ]
    for request in bad:
        assert typed.faults(request, KINDS), request


def request_faults(simulator) -> list[str]:
    """What is wrong with the last request, by the types of the version that it was sent under."""
    sent = simulator.last(CLAUDE.wire)
    headers = simulator.requests()[-1]["headers"]
    known = SAMPLING if headers["anthropic-version"] == FIRST_VERSION else set()
    return typed.faults({name: value for name, value in sent.items() if name not in known}, KINDS)


def test_the_headers_are_what_anthropic_asks_for(client, simulator):
    client.chat.completions.create(model=CLAUDE.model, messages=says("hello"))
    headers = simulator.requests()[-1]["headers"]
    assert headers["anthropic-version"]
    assert "sk-ant-simulated" in (headers.get("x-api-key"), headers.get("authorization", "").removeprefix("Bearer "))
    assert "sk-weir" not in json.dumps(headers), "the caller's key stays with Weir"
