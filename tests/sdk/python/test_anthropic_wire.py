"""What Weir sends to Anthropic, checked against the request types of Anthropic's own client."""

import json

import pytest
from anthropic.types import message_create_params as anthropic_types
from pydantic import BaseModel

import typed
from conftest import CLAUDE, NOTHING, TIME, WEATHER, says
from test_chat import PIXEL, Person

KINDS = anthropic_types.MessageCreateParamsNonStreaming | anthropic_types.MessageCreateParamsStreaming


class Options(BaseModel):
    city: str
    days: int | None = None


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
    "reasoning handed back": {
        "tools": [WEATHER],
        "reasoning_effort": "low",
        "max_tokens": 9000,
        "messages": [
            *says("weather"),
            {
                "role": "assistant",
                "content": None,
                "reasoning_content": "hm",
                "thinking_blocks": [
                    {"type": "thinking", "thinking": "hm", "signature": "c2ln"},
                    {"type": "redacted_thinking", "data": "ZGF0YQ=="},
                ],
                "tool_calls": CALLS[:1],
            },
            {"role": "tool", "tool_call_id": "call_1", "content": "sunny"},
        ],
    },
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_sent_is_a_request_of_anthropics_own_types(client, simulator, case):
    ask = json.loads(json.dumps(CASES[case]))
    answer = client.chat.completions.create(model=CLAUDE.model, **ask)
    if ask.get("stream"):
        list(answer)
    sent = simulator.last(CLAUDE.wire)
    assert typed.faults(sent, KINDS) == []


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


def test_the_headers_are_what_anthropic_asks_for(client, simulator):
    client.chat.completions.create(model=CLAUDE.model, messages=says("hello"))
    headers = simulator.requests()[-1]["headers"]
    assert headers["anthropic-version"]
    assert "sk-ant-simulated" in (headers.get("x-api-key"), headers.get("authorization", "").removeprefix("Bearer "))
    assert "sk-weir" not in json.dumps(headers), "the caller's key stays with Weir"
