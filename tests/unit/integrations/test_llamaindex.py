"""LlamaIndex's interfaces on the API in this process."""

import asyncio

import numpy as np
import pytest
from llama_index.core.schema import NodeWithScore, TextNode

from semel.client import Client
from semel.errors import UnknownModelError
from semel.integrations.llamaindex import SemelEmbedding, SemelRerank


def nodes(*texts: str) -> list[NodeWithScore]:
    return [NodeWithScore(node=TextNode(text=text), score=0.25) for text in texts]


def test_texts_and_queries_get_their_prompts(client: Client) -> None:
    embedding = SemelEmbedding(client=client, model_name="prompted")
    expected = client.embed(["text cat", "text dog", "find cat"], model="prompted")
    np.testing.assert_array_equal(embedding.get_text_embedding_batch(["cat", "dog"]), expected[:2])
    np.testing.assert_array_equal(embedding.get_text_embedding("cat"), expected[0])
    np.testing.assert_array_equal(embedding.get_query_embedding("cat"), expected[2])


def test_the_asynchronous_calls_give_the_same_vectors(client: Client) -> None:
    embedding = SemelEmbedding(client=client, model_name="prompted")
    expected = client.embed(["text cat", "text dog", "find cat"], model="prompted")
    np.testing.assert_array_equal(asyncio.run(embedding.aget_text_embedding_batch(["cat", "dog"])), expected[:2])
    np.testing.assert_array_equal(asyncio.run(embedding.aget_query_embedding("cat")), expected[2])


def test_without_a_name_the_server_takes_its_default_model(client: Client) -> None:
    np.testing.assert_array_equal(SemelEmbedding(client=client).get_text_embedding("x"), client.embed(["x"])[0])


def test_a_long_list_goes_in_several_requests_and_keeps_its_order(client: Client) -> None:
    texts = [f"one of many {i}" for i in range(8)]
    embedding = SemelEmbedding(client=client, embed_batch_size=3)
    np.testing.assert_array_equal(embedding.get_text_embedding_batch(texts), client.embed(texts))


def test_an_error_of_the_server_reaches_the_caller(client: Client) -> None:
    with pytest.raises(UnknownModelError):
        SemelEmbedding(client=client, model_name="nothing").get_query_embedding("x")


def test_a_saved_embedding_does_not_contain_the_client(client: Client) -> None:
    saved = SemelEmbedding(client=client, model_name="fake").to_dict()
    assert "client" not in saved
    assert (saved["class_name"], saved["model_name"]) == ("SemelEmbedding", "fake")


def test_the_most_relevant_nodes_are_kept_with_their_new_scores(client: Client) -> None:
    rerank = SemelRerank(client=client, model="reranker", top_n=2)
    kept = rerank.postprocess_nodes(nodes("a dog", "red fox", "a fox"), query_str="red fox")
    assert [(node.node.get_content(), node.score) for node in kept] == [("red fox", 1.0), ("a fox", 0.5)]


def test_no_nodes_are_reranked_to_none(client: Client) -> None:
    assert SemelRerank(client=client, model="nothing").postprocess_nodes([], query_str="x") == []


def test_without_a_query_there_is_nothing_to_compare_with(client: Client) -> None:
    with pytest.raises(ValueError, match="needs the query; pass query_bundle or query_str"):
        SemelRerank(client=client).postprocess_nodes(nodes("a"))
