"""semel inside other frameworks, with the real libraries."""

import numpy as np
from langchain_core.documents import Document
from langchain_core.vectorstores import InMemoryVectorStore

from semel.integrations.langchain import SemelEmbeddings, SemelRerank
from tests.support.processes import Processes


def test_langchain_finds_what_it_stored(semel: Processes) -> None:
    embeddings = SemelEmbeddings(semel.client, model="fake")
    store = InMemoryVectorStore(embeddings)
    store.add_texts([f"stored text {i}" for i in range(5)])
    assert store.similarity_search("stored text 3", k=1)[0].page_content == "stored text 3"


def test_langchain_embeds_queries_and_documents_with_their_prompts(semel: Processes) -> None:
    embeddings = SemelEmbeddings(semel.client, model="prompted")
    expected = semel.client.embed(["text cat", "text dog", "find cat"], model="prompted")
    np.testing.assert_array_equal(embeddings.embed_documents(["cat", "dog"]), expected[:2])
    np.testing.assert_array_equal(embeddings.embed_query("cat"), expected[2])


def test_langchain_sends_a_long_list_in_parts_and_keeps_the_order(semel: Processes) -> None:
    texts = [f"one of many {i}" for i in range(2500)]
    vectors = SemelEmbeddings(semel.client, model="fake").embed_documents(texts)
    for at in (0, 1023, 1024, 2499):
        np.testing.assert_array_equal(vectors[at], semel.client.embed([texts[at]], model="fake")[0])


def test_langchain_compresses_to_the_most_relevant(semel: Processes) -> None:
    documents = [Document(text, metadata={"at": i}) for i, text in enumerate(["no", "what was asked", "nor this"])]
    rerank = SemelRerank(client=semel.client, model="fake", top_n=2)
    kept = rerank.compress_documents(documents, "what was asked")
    assert len(kept) == 2
    assert (kept[0].page_content, kept[0].metadata["at"]) == ("what was asked", 1)
    assert kept[0].metadata["relevance_score"] > kept[1].metadata["relevance_score"]
    assert "relevance_score" not in documents[1].metadata, "the caller's documents are left alone"
    assert rerank.compress_documents([], "x") == []
