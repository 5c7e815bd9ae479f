"""Cohere's and Jina's requests and answers."""

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from semel.api.dialects.cohere import (
    INPUT_TYPES,
    CohereEmbedRequest,
    EmbeddingType,
    RerankRequest,
    check_query,
    documents_of,
    quantized,
    rerank_body,
)
from semel.errors import BadInputError, InvalidTextError
from semel.settings import Settings
from semel.values.vectors import Vectors
from tests.support.values import vectors

NARROW = Settings(max_request_texts=3, max_text_bytes=10)

# Rerank


def request(*documents: Any, query: str = "q", **options: Any) -> RerankRequest:
    return RerankRequest(query=query, documents=list(documents), **options)


def test_documents_are_texts_or_objects_with_a_text() -> None:
    assert documents_of(request("a", {"text": "b", "title": "ignored"}), NARROW) == ["a", "b"]


@pytest.mark.parametrize(
    ("documents", "message"),
    [
        ([{"title": "a"}], 'document 0 has no string in "text"'),
        (["a", {"text": 3}], 'document 1 has no string in "text"'),
        (["a", {"text": None}], "document 1 has no string"),
        ([], "documents is an empty list"),
        (["a"] * 4, "documents has 4 texts"),
    ],
)
def test_documents_without_texts_are_refused(documents: list[Any], message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        documents_of(request(*documents), NARROW)


def test_a_long_document_is_named() -> None:
    with pytest.raises(InvalidTextError, match="text 1 is longer than 10 characters"):
        documents_of(request("a", {"text": "x" * 11}), NARROW)


def test_a_long_query_is_refused_before_the_documents() -> None:
    for check in (lambda: check_query("x" * 11, NARROW), lambda: documents_of(request(query="x" * 11), NARROW)):
        with pytest.raises(BadInputError, match="the query is longer than 10 characters"):
            check()
    check_query("x" * 10, NARROW)


def answer(asked: RerankRequest, scores: list[float]) -> dict[str, Any]:
    documents = [str(document) for document in asked.documents]
    body = rerank_body(asked, documents, np.array(scores, np.float32), model="m", kind="cross-encoder", tokens=9)
    return body.model_dump(exclude_none=True)


def test_the_best_document_comes_first_and_equal_ones_keep_their_order() -> None:
    results = answer(request("a", "b", "c", "d"), [0.5, 1.0, 0.5, -1.0])["results"]
    assert results == [
        {"index": 1, "relevance_score": 1.0},
        {"index": 0, "relevance_score": 0.5},
        {"index": 2, "relevance_score": 0.5},
        {"index": 3, "relevance_score": -1.0},
    ]


@pytest.mark.parametrize(("top_n", "indices"), [(1, [1]), (2, [1, 2]), (9, [1, 2, 0]), (None, [1, 2, 0])])
def test_top_n_limits_the_results(top_n: int | None, indices: list[int]) -> None:
    results = answer(request("a", "b", "c", top_n=top_n), [0.1, 0.3, 0.2])["results"]
    assert [result["index"] for result in results] == indices


def test_documents_come_back_when_requested() -> None:
    results = answer(request("a", "b", return_documents=True), [0.1, 0.3])["results"]
    assert [result["document"] for result in results] == [{"text": "b"}, {"text": "a"}]


def test_the_answer_names_model_kind_and_tokens() -> None:
    body = answer(request("a"), [0.1])
    assert (body["model"], body["usage"], len(body["id"])) == ("m", {"total_tokens": 9}, 36)
    assert (body["meta"]["kind"], body["meta"]["tokens"]) == ("cross-encoder", {"input_tokens": 9})


@pytest.mark.parametrize("wrong", [{"top_n": 0}, {"query": None}, {"documents": "a"}, {"documents": [3]}])
def test_a_rerank_field_with_a_wrong_value_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        RerankRequest.model_validate({"query": "q", "documents": ["a"], **wrong})


# Embed

UNIT: Vectors = np.array([[0.6, -0.8, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0], [0, 0, 0, 0, 0, 0, 0, 1]], np.float32)


@pytest.mark.parametrize(
    ("kind", "rows"),
    [
        ("float", UNIT.tolist()),
        ("int8", [[76, -102, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0, 127]]),
        ("uint8", [[204, 26, 128, 128, 128, 128, 128, 128], [128, 128, 128, 128, 128, 128, 128, 255]]),
        ("ubinary", [[0b10000000], [0b00000001]]),
        ("binary", [[0], [-127]]),
    ],
)
def test_vectors_in_every_number_type(kind: EmbeddingType, rows: list[list[float]]) -> None:
    assert quantized(UNIT, kind).tolist() == rows


def test_a_vector_is_scaled_to_length_1_before_it_is_rounded() -> None:
    assert np.array_equal(quantized(UNIT * 7, "int8"), quantized(UNIT, "int8"))


@pytest.mark.parametrize("kind", ["int8", "uint8", "binary", "ubinary"])
def test_a_vector_does_not_depend_on_its_neighbours(kind: EmbeddingType) -> None:
    rows = vectors(20, 16)
    together = quantized(rows, kind)
    assert all(np.array_equal(quantized(rows[i : i + 1], kind)[0], together[i]) for i in range(20))


@pytest.mark.parametrize(("kind", "low", "high"), [("int8", -127, 127), ("uint8", 1, 255), ("binary", -128, 127)])
def test_numbers_stay_in_the_range_of_their_type(kind: EmbeddingType, low: int, high: int) -> None:
    numbers = quantized(np.concatenate([np.eye(16), -np.eye(16), vectors(50, 16)]).astype(np.float32), kind)
    assert low <= numbers.min() <= numbers.max() <= high


def test_queries_and_documents_have_prompts_and_other_types_have_none() -> None:
    assert INPUT_TYPES == {"search_query": "query", "search_document": "document"}


@pytest.mark.parametrize(
    "wrong",
    [{"input_type": None}, {"input_type": "image"}, {"embedding_types": []}, {"embedding_types": ["float16"]},
     {"output_dimension": 0}, {"truncate": "LEFT"}, {"texts": "a"}],
)  # fmt: skip
def test_an_embed_field_with_a_wrong_value_is_refused(wrong: dict[str, Any]) -> None:
    sound = {"texts": ["a"], "input_type": "clustering"}
    assert CohereEmbedRequest.model_validate(sound).embedding_types == ["float"]
    with pytest.raises(ValidationError) as caught:
        CohereEmbedRequest.model_validate({**sound, **wrong})
    assert caught.value.errors()[0]["loc"][0] == next(iter(wrong))
