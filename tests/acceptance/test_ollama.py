"""Ollama's clients against a running stack; only the base URL is changed."""

from collections.abc import Iterator

import httpx
import numpy as np
import ollama
import pytest
from langchain_ollama import OllamaEmbeddings

from tests.support.processes import Processes

TEXTS = ["the first one", "the second one", "the first one"]


@pytest.fixture
def client(semel: Processes) -> Iterator[ollama.Client]:
    made = ollama.Client(host=semel.url)
    yield made
    made._client.close()


def test_texts_are_embedded_in_order(semel: Processes, client: ollama.Client) -> None:
    answer = client.embed(model="fake", input=TEXTS)
    vectors = np.array(answer.embeddings, np.float32)
    np.testing.assert_array_equal(vectors, semel.client.embed(TEXTS, model="fake"))
    assert answer.prompt_eval_count == 9
    assert answer.model == "fake"


def test_a_single_text_is_embedded(semel: Processes, client: ollama.Client) -> None:
    expected = semel.client.embed(["one text"], model="fake")
    new = client.embed(model="fake:latest", input="one text")
    np.testing.assert_array_equal(np.array(new.embeddings, np.float32), expected)
    old = client.embeddings(model="fake", prompt="one text")
    np.testing.assert_array_equal(np.array([old.embedding], np.float32), expected)


def test_num_ctx_cuts_the_texts(semel: Processes, client: ollama.Client) -> None:
    cut = client.embed(model="fake", input="one two three", options={"num_ctx": 2, "temperature": 0.5}).embeddings
    expected = semel.client.embed(["one two"], model="fake")
    np.testing.assert_array_equal(np.array(cut, np.float32), expected)
    whole = client.embed(model="fake", input="one two three", options={"num_ctx": 8192}).embeddings
    np.testing.assert_array_equal(np.array(whole, np.float32), semel.client.embed(["one two three"], model="fake"))


def test_a_long_text_is_refused_if_it_must_not_be_cut(client: ollama.Client) -> None:
    with pytest.raises(ollama.ResponseError, match="longer than the model reads") as caught:
        client.embed(model="fake", input="word " * 30, truncate=False)
    assert caught.value.status_code == 400


def test_an_unknown_option_is_refused_by_its_name(client: ollama.Client) -> None:
    with pytest.raises(ollama.ResponseError, match="'rope_scale' is no option"):
        client.embed(model="fake", input="x", options={"rope_scale": 2})


def test_the_models_are_listed_and_described(client: ollama.Client) -> None:
    assert {"fake:latest", "reranker:latest"} <= {each.model for each in client.list().models}
    shown = client.show("fake")
    assert shown.capabilities == ["embedding"]
    assert shown.modelinfo is not None
    assert shown.modelinfo["embedding.embedding_length"] == 16
    assert shown.modelinfo["embedding.context_length"] == 20
    assert client.show("reranker").capabilities == []


def test_an_unknown_model_is_404_in_ollamas_shape(semel: Processes, client: ollama.Client) -> None:
    with pytest.raises(ollama.ResponseError, match="no model named 'nope'") as caught:
        client.embed(model="nope", input="x")
    assert caught.value.status_code == 404
    assert httpx.post(f"{semel.url}/api/show", json={}).json()["error"] == "model: send the name of a model"


def test_the_version_is_semels(semel: Processes) -> None:
    import semel as package

    assert httpx.get(f"{semel.url}/api/version").json() == {"version": package.__version__}


def test_langchains_class_for_ollama(semel: Processes) -> None:
    embeddings = OllamaEmbeddings(model="fake", base_url=semel.url)
    expected = semel.client.embed(TEXTS, model="fake")
    np.testing.assert_array_equal(np.array(embeddings.embed_documents(TEXTS), np.float32), expected)
    np.testing.assert_array_equal(np.array(embeddings.embed_query(TEXTS[1]), np.float32), expected[1])
    embeddings._client._client.close()
