"""Embeddings: the client asks for base64 unless told otherwise, and providers answer as they like."""

import pytest

MODELS = ["embed-small", "embed-floats", "embed-base64"]


@pytest.mark.parametrize("model", MODELS)
def test_the_clients_default_has_the_right_length(client, model):
    answer = client.embeddings.create(model=model, input="hello there")
    [row] = answer.data
    assert len(row.embedding) == 1536
    assert all(isinstance(number, float) for number in row.embedding)
    assert sum(number * number for number in row.embedding) == pytest.approx(1, abs=1e-3)
    assert answer.usage.prompt_tokens == answer.usage.total_tokens > 0


@pytest.mark.parametrize("model", MODELS)
def test_floats_and_base64_are_the_same_vector(client, model):
    floats = client.embeddings.create(model=model, input="hello", encoding_format="float").data[0].embedding
    binary = client.embeddings.create(model=model, input="hello").data[0].embedding
    assert floats == pytest.approx(binary, abs=1e-6)


@pytest.mark.parametrize("model", MODELS)
def test_base64_asked_for_by_name_comes_as_text(client, model):
    answer = client.embeddings.create(model=model, input="hello", encoding_format="base64")
    assert isinstance(answer.data[0].embedding, str)


def test_a_batch_keeps_its_order(client):
    texts = [f"text {n}" for n in range(5)]
    batch = client.embeddings.create(model="embed-small", input=texts)
    assert [row.index for row in batch.data] == list(range(5))
    alone = client.embeddings.create(model="embed-small", input=texts[3])
    assert batch.data[3].embedding == pytest.approx(alone.data[0].embedding, abs=1e-6)


def test_dimensions_are_the_callers(client):
    answer = client.embeddings.create(model="embed-small", input="hello", dimensions=256)
    assert len(answer.data[0].embedding) == 256


async def test_the_async_client_embeds(async_client):
    answer = await async_client.embeddings.create(model="embed-small", input=["a", "b"])
    assert [len(row.embedding) for row in answer.data] == [1536, 1536]
