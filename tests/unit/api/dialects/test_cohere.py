"""Cohere's and Jina's requests and answers."""

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from semel.api.dialects.cohere import (
    INPUT_TYPES,
    CohereEmbedRequest,
    RerankRequest,
    check_query,
    documents_of,
    rerank_body,
)
from semel.errors import BadInputError, InvalidTextError
from semel.settings import Settings
from semel.values.variant import AS_DEFINED, Variant

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


def test_the_ranked_fields_of_a_document_are_joined_by_newlines_in_their_order() -> None:
    document = {"title": "a", "text": "b", "body": "c"}
    assert documents_of(request("x", document, rank_fields=["body", "title"]), NARROW) == ["x", "c\na"]


@pytest.mark.parametrize("document", [{"text": "a"}, {"title": 3}, {"title": None}])
def test_a_document_without_a_ranked_field_is_refused_by_its_name(document: dict[str, Any]) -> None:
    with pytest.raises(BadInputError, match="document 1 has no string in 'title', which rank_fields names"):
        documents_of(request("a", document, rank_fields=["title"]), NARROW)


def test_a_long_document_is_named() -> None:
    with pytest.raises(InvalidTextError, match="text 1 is longer than 10 characters"):
        documents_of(request("a", {"text": "x" * 11}), NARROW)


def test_a_long_query_is_refused_before_the_documents() -> None:
    for check in (lambda: check_query("x" * 11, NARROW), lambda: documents_of(request(query="x" * 11), NARROW)):
        with pytest.raises(BadInputError, match="the query is longer than 10 characters"):
            check()
    check_query("x" * 10, NARROW)


def answer(asked: RerankRequest, scores: list[float]) -> dict[str, Any]:
    body = rerank_body(asked, np.array(scores, np.float32), model="m", kind="cross-encoder", tokens=9)
    return body.model_dump(exclude_none=True)


def test_the_best_document_comes_first_and_equal_ones_keep_their_order() -> None:
    results = answer(request("a", "b", "c", "d"), [0.5, 1.0, 0.5, -1.0])["results"]
    assert results == [
        {"index": 1, "relevance_score": 1.0},
        {"index": 0, "relevance_score": 0.5},
        {"index": 2, "relevance_score": 0.5},
        {"index": 3, "relevance_score": -1.0},
    ]


@pytest.mark.parametrize("name", ["top_n", "top_k"])
@pytest.mark.parametrize(("most", "indices"), [(1, [1]), (2, [1, 2]), (9, [1, 2, 0]), (None, [1, 2, 0])])
def test_the_number_of_results_can_be_limited(name: str, most: int | None, indices: list[int]) -> None:
    results = answer(request("a", "b", "c", **{name: most}), [0.1, 0.3, 0.2])["results"]
    assert [result["index"] for result in results] == indices


def test_documents_come_back_when_requested() -> None:
    results = answer(request("a", "b", return_documents=True), [0.1, 0.3])["results"]
    assert [result["document"] for result in results] == [{"text": "b"}, {"text": "a"}]


def test_a_document_comes_back_with_all_its_fields() -> None:
    document = {"title": "a", "page": 3}
    (result,) = answer(request(document, rank_fields=["title"], return_documents=True), [0.1])["results"]
    assert result["document"] == document


@pytest.mark.parametrize("options", [{"top_k": 2}, {"truncation": True}, {"truncation": False}])
def test_voyages_clients_find_their_results_in_data_with_documents_as_strings(options: dict[str, Any]) -> None:
    body = answer(request("a", "b", return_documents=True, **options), [0.1, 0.3])
    assert body["object"] == "list"
    assert [(r["index"], r["document"]) for r in body["data"]] == [(1, "b"), (0, "a")]
    assert [r["document"] for r in body["results"]] == [{"text": "b"}, {"text": "a"}]


def test_the_answer_to_another_client_has_no_data() -> None:
    body = answer(request("a", top_n=1), [0.1])
    assert not {"data", "object"} & body.keys()


def test_the_answer_names_model_kind_and_tokens() -> None:
    body = answer(request("a"), [0.1])
    assert (body["model"], len(body["id"])) == ("m", 36)
    assert body["usage"] == {"prompt_tokens": 9, "total_tokens": 9}
    assert (body["meta"]["kind"], body["meta"]["tokens"]) == ("cross-encoder", {"input_tokens": 9})


@pytest.mark.parametrize(
    ("options", "raw"),
    [
        ({}, False),
        ({"raw_scores": True}, True),
        ({"use_activation": False}, True),
        ({"use_activation": True}, False),
        ({"raw_scores": True, "use_activation": False}, True),
    ],
)
def test_logits_are_returned_when_they_are_requested(options: dict[str, bool], raw: bool) -> None:
    assert request("a", **options).raw is raw


def test_documents_may_be_cut_at_a_number_of_tokens_or_refused_above_the_limit() -> None:
    assert request("a").variant == AS_DEFINED
    assert request("a", max_tokens_per_doc=3).variant == Variant(document_tokens=3)
    assert request("a").truncate
    assert not request("a", truncation=False).truncate


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top_n": 1, "top_k": 2}, "top_n and top_k are two names of one parameter"),
        ({"raw_scores": True, "use_activation": True}, "raw_scores and use_activation contradict each other"),
    ],
)
def test_two_names_of_one_parameter_may_not_disagree(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        request("a", **options)


def test_two_names_of_one_parameter_may_agree() -> None:
    assert request("a", top_n=2, top_k=2).most == 2


@pytest.mark.parametrize(
    "wrong",
    [{"top_n": 0}, {"query": None}, {"documents": "a"}, {"documents": [3]}, {"top_k": 0}, {"max_tokens_per_doc": 0},
     {"rank_fields": []}],
)  # fmt: skip
def test_a_rerank_field_with_a_wrong_value_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        RerankRequest.model_validate({"query": "q", "documents": ["a"], **wrong})


# Embed


def test_queries_and_documents_have_prompts_and_other_types_have_none() -> None:
    assert INPUT_TYPES == {"search_query": "query", "search_document": "document"}


@pytest.mark.parametrize(
    "wrong",
    [{"input_type": None}, {"input_type": "image"}, {"embedding_types": []}, {"embedding_types": ["float16"]},
     {"output_dimension": 0}, {"truncate": "LEFT"}, {"texts": "a"}, {"max_tokens": 0},
     {"inputs": [{"content": []}]}, {"inputs": [{"content": [{"type": "image_url", "text": "a"}]}]}],
)  # fmt: skip
def test_an_embed_field_with_a_wrong_value_is_refused(wrong: dict[str, Any]) -> None:
    sound = {"texts": ["a"], "input_type": "clustering"}
    assert CohereEmbedRequest.model_validate(sound).embedding_types == ["float"]
    with pytest.raises(ValidationError) as caught:
        CohereEmbedRequest.model_validate({**sound, **wrong})
    assert caught.value.errors()[0]["loc"][0] == next(iter(wrong))


@pytest.mark.parametrize(
    ("options", "variant"),
    [
        ({}, AS_DEFINED),
        ({"truncate": "END"}, AS_DEFINED),
        ({"truncate": "NONE"}, AS_DEFINED),
        ({"truncate": "START"}, Variant(truncate_side="left")),
        ({"truncate": "START", "max_tokens": 5}, Variant(5, "left")),
        ({"max_tokens": 5}, Variant(5)),
    ],
)
def test_a_request_says_where_texts_are_cut(options: dict[str, Any], variant: Variant) -> None:
    asked = CohereEmbedRequest.model_validate({"texts": ["a"], "input_type": "clustering", **options})
    assert asked.variant == variant


def embedding(**given: Any) -> CohereEmbedRequest:
    return CohereEmbedRequest.model_validate({"input_type": "clustering", **given})


def test_the_pieces_of_an_input_are_joined_by_newlines() -> None:
    pieces = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert embedding(inputs=[{"content": pieces}, {"content": pieces[:1]}]).given_texts() == ["a\nb", "a"]
    assert embedding(texts=["a", "b"]).given_texts() == ["a", "b"]


@pytest.mark.parametrize("given", [{}, {"texts": [], "inputs": []}, {"texts": ["a"], "inputs": []}])
def test_texts_are_given_in_one_way(given: dict[str, Any]) -> None:
    with pytest.raises(BadInputError, match="send either texts, or inputs with pieces of text"):
        embedding(**given).given_texts()
