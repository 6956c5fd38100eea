"""Answers of many blocks through OpenAI's own stream helper: nothing is lost, whole or streamed, there and back."""

import json

import pytest

import conftest
import stage

CASES = ["blocks-in-turn", "citations", "thinking-stream", "parallel-tools-stream"]


@pytest.mark.parametrize("case", CASES)
def test_the_stream_helper_gathers_what_the_whole_answer_says(client, case):
    ask = {"model": f"played/{case}", "messages": conftest.says("go")}
    whole = client.chat.completions.create(**ask).choices[0]
    streamed = helped(client, **ask)
    assert streamed.finish_reason == whole.finish_reason
    assert meaning(streamed.message) == meaning(whole.message)


@pytest.mark.parametrize("case", CASES)
def test_what_the_stream_helper_gathered_goes_back_as_the_provider_said_it(client, player, case):
    ask = {"model": f"played/{case}", "messages": conftest.says("go")}
    message = helped(client, **ask).message
    results = [{"role": "tool", "tool_call_id": call.id, "content": "r"} for call in message.tool_calls or []]
    back = [*ask["messages"], message.model_dump(exclude_none=True), *results, *conftest.says("more")]
    client.chat.completions.create(model=ask["model"], messages=back)
    said = json.loads((stage.FIXTURES / case / "reply.native").read_text())["content"]
    assert plain(player.bodies[-1]["messages"][1]["content"]) == plain(said)


def helped(client, **ask):
    with client.chat.completions.stream(**ask) as stream:
        for _ in stream:
            pass
        return stream.get_final_completion().choices[0]


def meaning(message) -> dict:
    """A message without what means nothing, its arguments as what they mean."""
    said = {name: value for name, value in message.model_dump().items() if value not in (None, "", [])}
    for call in said.get("tool_calls", []):
        call.pop("index", None)
        call["function"] = {"name": call["function"]["name"], "arguments": json.loads(call["function"]["arguments"])}
    return said


def plain(content) -> list[dict]:
    """Blocks without what means nothing."""
    blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
    kept = [{name: value for name, value in block.items() if value not in (None, [])} for block in blocks]
    for block in kept:
        if block["type"] == "tool_use" and block.get("caller") == {"type": "direct"}:
            del block["caller"]
    return kept
