"""semel inside other frameworks, with the real libraries."""

import asyncio
import os
from typing import Any

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # otherwise importing litellm sends a network request

import litellm
import numpy as np
import openai
import pytest
from langchain_core.documents import Document
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_openai import OpenAIEmbeddings
from llama_index.core import VectorStoreIndex
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.embeddings.openai import OpenAIEmbedding
from pydantic import SecretStr

from semel.integrations.langchain import SemelEmbeddings, SemelRerank
from semel.integrations.llamaindex import SemelEmbedding
from semel.integrations.llamaindex import SemelRerank as SemelNodeRerank
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


def test_llamaindex_finds_what_it_stored(semel: Processes) -> None:
    embedding = SemelEmbedding(client=semel.client, model_name="fake")
    nodes = [TextNode(text=f"a node {i}") for i in range(5)]
    index = VectorStoreIndex(nodes, embed_model=embedding)
    (best,) = index.as_retriever(similarity_top_k=1).retrieve("a node 3")
    assert best.node.get_content() == "a node 3"
    assert best.score == pytest.approx(1.0, abs=1e-5)


def test_llamaindex_embeds_queries_and_documents_with_their_prompts(semel: Processes) -> None:
    embedding = SemelEmbedding(client=semel.client, model_name="prompted")
    expected = semel.client.embed(["text cat", "text dog", "find cat"], model="prompted")
    np.testing.assert_array_equal(embedding.get_text_embedding_batch(["cat", "dog"]), expected[:2])
    np.testing.assert_array_equal(embedding.get_text_embedding("cat"), expected[0])
    np.testing.assert_array_equal(embedding.get_query_embedding("cat"), expected[2])
    np.testing.assert_array_equal(asyncio.run(embedding.aget_text_embedding_batch(["cat", "dog"])), expected[:2])
    np.testing.assert_array_equal(asyncio.run(embedding.aget_query_embedding("cat")), expected[2])


def test_llamaindex_keeps_the_most_relevant(semel: Processes) -> None:
    nodes = [NodeWithScore(node=TextNode(text=text), score=0.5) for text in ("no", "red fox", "a fox")]
    rerank = SemelNodeRerank(client=semel.client, model="reranker", top_n=2)
    kept = rerank.postprocess_nodes(nodes, query_str="red fox")
    assert [(node.node.get_content(), node.score) for node in kept] == [("red fox", 1.0), ("a fox", 0.5)]
    assert rerank.postprocess_nodes([], query_str="x") == []
    with pytest.raises(ValueError, match="needs the query"):
        rerank.postprocess_nodes(nodes)


# The OpenAI clients of these frameworks


def test_langchain_openai(semel: Processes) -> None:
    embeddings = OpenAIEmbeddings(
        base_url=f"{semel.url}/v1", api_key=SecretStr("any"), model="fake", check_embedding_ctx_length=False
    )
    expected = semel.client.embed(["one", "two"], model="fake")
    np.testing.assert_array_equal(np.array(embeddings.embed_documents(["one", "two"]), np.float32), expected)
    np.testing.assert_array_equal(np.array(embeddings.embed_query("one"), np.float32), expected[0])


def test_langchain_openai_with_token_ids_gets_an_error_that_names_the_fix(semel: Processes, monkeypatch: Any) -> None:
    embeddings = OpenAIEmbeddings(base_url=f"{semel.url}/v1", api_key=SecretStr("any"), model="fake", max_retries=0)

    def token_ids(*_: Any) -> Any:  # tiktoken would download its tables
        return [0], [[1, 2, 3]], [0], [3]

    monkeypatch.setattr(OpenAIEmbeddings, "_tokenize", token_ids)
    with pytest.raises(openai.BadRequestError, match="check_embedding_ctx_length=False"):
        embeddings.embed_documents(["one"])


def test_llamaindex_openai(semel: Processes) -> None:
    embedding = OpenAIEmbedding(api_base=f"{semel.url}/v1", api_key="any", model_name="fake", max_retries=0)
    expected = semel.client.embed(["one", "two"], model="fake")
    np.testing.assert_array_equal(np.array(embedding.get_text_embedding_batch(["one", "two"]), np.float32), expected)


def test_litellm_embeds_and_reranks(semel: Processes) -> None:
    answer = litellm.embedding(model="openai/fake", input=["one", "two"], api_base=f"{semel.url}/v1", api_key="any")
    vectors = np.array([item["embedding"] for item in answer.data], np.float32)
    np.testing.assert_array_equal(vectors, semel.client.embed(["one", "two"], model="fake"))
    assert answer.usage.prompt_tokens == 2
    for provider in ("cohere", "jina_ai"):
        ranked = litellm.rerank(
            model=f"{provider}/reranker",
            query="red fox",
            documents=["no", "red fox", "a fox"],
            top_n=2,
            api_base=f"{semel.url}/v1/rerank",
            api_key="any",
            return_documents=False,
        )
        assert [(r["index"], r["relevance_score"]) for r in ranked.results] == [(1, 1.0), (2, 0.5)], provider
