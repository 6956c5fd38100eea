"""LangChain's OpenAI integration against Weir."""

import pytest
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel

from conftest import KEY


class Answer(BaseModel):
    """An answer to the question."""

    title: str
    score: int


@tool
def weather(city: str) -> str:
    """Tells the weather of a city."""
    return f"sunny in {city}"


@pytest.fixture
def chat(weir, provider):
    return ChatOpenAI(model=provider.model, base_url=f"{weir.url}/v1", api_key=KEY, max_retries=0)


def test_invoke_answers_with_usage(chat):
    message = chat.invoke("hello there")
    assert message.text == "You said: hello there"
    usage = message.usage_metadata
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"] > 0


def test_stream_gives_the_same_text_in_pieces(chat):
    pieces = list(chat.stream("one two three", stream_usage=True))
    assert len(pieces) > 2
    assert "".join(piece.text for piece in pieces) == "You said: one two three"
    assert sum(piece.usage_metadata["output_tokens"] for piece in pieces if piece.usage_metadata) > 0


async def test_ainvoke_answers(chat):
    assert (await chat.ainvoke("hello")).text == "You said: hello"


def test_a_bound_tool_is_called_and_its_result_answered(chat):
    bound = chat.bind_tools([weather])
    question = HumanMessage("the weather in Rome")
    called = bound.invoke([question])
    [call] = called.tool_calls
    assert call["name"] == "weather" and isinstance(call["args"]["city"], str)
    answer = bound.invoke([question, called, ToolMessage(weather.invoke(call["args"]), tool_call_id=call["id"])])
    assert "sunny in" in answer.text


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_structured_output_is_the_callers_class(chat, method):
    answer = chat.with_structured_output(Answer, method=method).invoke("rate Rome")
    assert isinstance(answer, Answer)


def test_embeddings_of_documents_and_of_a_query(weir):
    # Token counting would fetch its tables from the network.
    embed = OpenAIEmbeddings(
        model="embed-small", base_url=f"{weir.url}/v1", api_key=KEY, check_embedding_ctx_length=False
    )
    documents = embed.embed_documents(["hello", "there"])
    assert [len(vector) for vector in documents] == [1536, 1536]
    assert embed.embed_query("hello") == pytest.approx(documents[0], abs=1e-6)
