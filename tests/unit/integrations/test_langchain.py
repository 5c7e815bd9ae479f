"""LangChain's interfaces on the API in this process."""

import numpy as np
import pytest
from langchain_core.documents import Document
from langchain_core.vectorstores import InMemoryVectorStore
from pydantic import ValidationError

from semel.client import Client, calls
from semel.errors import UnknownModelError
from semel.integrations.langchain import SemelEmbeddings, SemelRerank


def test_documents_and_queries_get_their_prompts(client: Client) -> None:
    embeddings = SemelEmbeddings(client, model="prompted")
    expected = client.embed(["text cat", "text dog", "find cat"], model="prompted")
    np.testing.assert_array_equal(embeddings.embed_documents(["cat", "dog"]), expected[:2])
    np.testing.assert_array_equal(embeddings.embed_query("cat"), expected[2])


def test_vectors_are_lists_of_plain_floats(client: Client) -> None:
    (vector,) = SemelEmbeddings(client).embed_documents(["a text"])
    assert type(vector) is list
    assert type(vector[0]) is float


def test_a_long_list_goes_in_several_requests_and_keeps_its_order(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "_MOST_TEXTS", 3)
    texts = [f"one of many {i}" for i in range(8)]
    np.testing.assert_array_equal(SemelEmbeddings(client).embed_documents(texts), client.embed(texts))


def test_no_documents_are_no_request(client: Client) -> None:
    assert SemelEmbeddings(client, model="nothing").embed_documents([]) == []


def test_an_error_of_the_server_reaches_the_caller(client: Client) -> None:
    with pytest.raises(UnknownModelError):
        SemelEmbeddings(client, model="nothing").embed_query("x")


def test_a_vector_store_finds_what_it_stored(client: Client) -> None:
    store = InMemoryVectorStore(SemelEmbeddings(client, model="fake"))
    store.add_texts([f"stored text {i}" for i in range(5)])
    assert store.similarity_search("stored text 3", k=1)[0].page_content == "stored text 3"


def test_the_most_relevant_documents_are_kept_with_their_scores(client: Client) -> None:
    documents = [Document(text, metadata={"at": i}) for i, text in enumerate(["a dog", "a fox", "red fox"])]
    kept = SemelRerank(client=client, model="reranker", top_n=2).compress_documents(documents, "red fox")
    assert [(document.page_content, document.metadata) for document in kept] == [
        ("red fox", {"at": 2, "relevance_score": 1.0}), ("a fox", {"at": 1, "relevance_score": 0.5}),
    ]  # fmt: skip
    assert documents[2].metadata == {"at": 2}, "the caller's documents are left alone"


def test_no_documents_are_compressed_to_none(client: Client) -> None:
    assert SemelRerank(client=client, model="nothing").compress_documents([], "x") == []


def test_an_unknown_option_is_refused(client: Client) -> None:
    with pytest.raises(ValidationError):
        SemelRerank(client=client, top_k=2)  # type: ignore[call-arg]
