"""Voyage's client against a running stack; only the base URL is changed."""

from collections.abc import Iterator

import numpy as np
import pytest
import requests
import voyageai

from tests.support.processes import Processes

TEXTS = ["the first one", "the second one", "the first one"]


@pytest.fixture(scope="module")
def client(semel: Processes) -> Iterator[voyageai.Client]:
    with requests.Session() as voyageai.requestssession:  # the client closes none of its connections
        yield voyageai.Client(api_key="any", base_url=f"{semel.url}/v1")


def test_texts_are_embedded_in_order(semel: Processes, client: voyageai.Client) -> None:
    answer = client.embed(TEXTS, model="fake")
    np.testing.assert_array_equal(np.array(answer.embeddings, np.float32), semel.client.embed(TEXTS, model="fake"))
    assert answer.total_tokens == 9


@pytest.mark.parametrize("dtype", ["int8", "uint8", "binary", "ubinary"])
def test_every_number_type_is_what_the_client_decodes(semel: Processes, client: voyageai.Client, dtype: str) -> None:
    rows = np.array(client.embed(TEXTS, model="fake", output_dtype=dtype).embeddings)
    vectors = semel.client.embed(TEXTS, model="fake")
    expected = {
        "int8": np.rint(vectors * 127),
        "uint8": np.rint(vectors * 127) + 128,
        "ubinary": np.packbits(vectors > 0, axis=1),
        "binary": np.packbits(vectors > 0, axis=1).astype(int) - 128,
    }
    np.testing.assert_array_equal(rows, expected[dtype])


def test_queries_and_documents_get_their_prompts(semel: Processes, client: voyageai.Client) -> None:
    def embedded(kind: str) -> list[float]:
        vector: list[float] = client.embed(["dog"], model="prompted", input_type=kind).embeddings[0]
        return vector

    expected = semel.client.embed(["find dog", "text dog"], model="prompted")
    np.testing.assert_array_equal(np.array([embedded("query"), embedded("document")], np.float32), expected)


def test_a_size_that_the_model_was_not_trained_for_is_refused(client: voyageai.Client) -> None:
    with pytest.raises(voyageai.error.InvalidRequestError, match=r"^model .* cannot be cut to 8 dimensions"):
        client.embed(TEXTS, model="fake", output_dimension=8)


def test_a_long_text_is_refused_without_truncation(client: voyageai.Client) -> None:
    with pytest.raises(voyageai.error.VoyageError, match="longer than the model reads"):
        client.embed(["word " * 30], model="fake", truncation=False)
    assert client.embed(["word " * 30], model="fake", truncation=True).total_tokens == 20


def test_documents_are_reranked(client: voyageai.Client) -> None:
    documents = ["nothing of it", "the blue whale", "a small whale"]
    answer = client.rerank("the blue whale", documents, model="reranker", top_k=2)
    assert [(each.index, each.document) for each in answer.results] == [(1, documents[1]), (2, documents[2])]
    assert answer.results[0].relevance_score == 1.0
    assert answer.total_tokens > 0
