"""POST /v1/rerank and /v2/rerank in this process."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semel.values.model import ModelEntry
from tests.support.answers import dialect_of, message_of
from tests.support.service import Service, service

PATHS = pytest.mark.parametrize("path", ["/v1/rerank", "/v2/rerank"])


@PATHS
def test_a_cross_encoder_scores_the_pairs(api: Service, path: str) -> None:
    body = {"model": "reranker", "query": "blue whale", "documents": ["a whale", "nothing", "the blue whale"]}
    answer = api.http.post(path, json=body).json()
    assert [(r["index"], r["relevance_score"]) for r in answer["results"]] == [(2, 1.0), (0, 0.5), (1, 0.0)]
    assert (answer["model"], answer["meta"]["kind"]) == ("reranker", "cross-encoder")


@PATHS
def test_an_embedding_model_scores_by_cosine(api: Service, path: str) -> None:
    documents = ["something else", "what was asked"]
    answer = api.http.post(path, json={"query": "what was asked", "documents": documents}).json()
    embedded = api.http.post("/v1/embeddings", json={"input": documents}).json()["data"]
    first, second = (np.array(item["embedding"], np.float32) for item in embedded)
    scores = {r["index"]: r["relevance_score"] for r in answer["results"]}
    assert scores[1] == pytest.approx(1, abs=1e-6)
    assert scores[0] == pytest.approx(float(first @ second), abs=1e-6)
    assert answer["meta"]["kind"] == "embedding similarity"


def test_query_and_documents_get_their_own_prompts(api: Service) -> None:
    api.http.post("/v1/embeddings", json={"model": "prompted", "input": "find a"})
    body = {"model": "prompted", "query": "a", "documents": ["b"]}
    assert api.http.post("/v1/rerank", json=body).headers["x-semel-cache"] == "hits=0; computed=2; coalesced=0"
    assert api.http.post("/v1/rerank", json=body).headers["x-semel-cache"] == "hits=2; computed=0; coalesced=0"


@PATHS
@pytest.mark.parametrize("options", [{"raw_scores": True}, {"use_activation": False}])
def test_logits_come_from_the_same_rows_of_the_cache_as_scores(
    tmp_path: Path, path: str, options: dict[str, bool]
) -> None:
    models = {"fake": ModelEntry("fake:?activation=Sigmoid", kind="cross-encoder")}
    body = {"query": "a b", "documents": ["c", "b a"]}
    with service(tmp_path, models=models) as running:
        plain, raw = running.http.post(path, json=body), running.http.post(path, json={**body, **options})
    scores, logits = ([r["relevance_score"] for r in answer.json()["results"]] for answer in (plain, raw))
    assert logits == [1.0, 0.0]
    assert scores == pytest.approx([0.7311, 0.5], abs=1e-4)
    assert raw.headers["x-semel-cache"] == "hits=2; computed=0; coalesced=0"


@PATHS
def test_a_document_is_cut_after_its_own_tokens(api: Service, path: str) -> None:
    body = {"model": "reranker", "query": "blue whale", "documents": ["one two blue whale", "blue one two three"]}
    whole = api.http.post(path, json=body)
    cut = api.http.post(path, json={**body, "max_tokens_per_doc": 3})
    assert [(r["index"], r["relevance_score"]) for r in whole.json()["results"]] == [(0, 1.0), (1, 0.5)]
    assert [(r["index"], r["relevance_score"]) for r in cut.json()["results"]] == [(0, 0.5), (1, 0.5)]
    assert (whole.headers["x-semel-truncated"], cut.headers["x-semel-truncated"]) == ("0", "2")


def test_an_embedding_model_cuts_documents_and_not_the_query(api: Service) -> None:
    body = {"query": "four words of query", "documents": ["four words of query and more"], "max_tokens_per_doc": 4}
    (result,) = api.http.post("/v2/rerank", json=body).json()["results"]
    assert result["relevance_score"] == pytest.approx(1, abs=1e-6)


@PATHS
def test_the_ranked_fields_of_a_document_are_scored(api: Service, path: str) -> None:
    documents = [{"title": "blue whale", "text": "nothing"}, {"title": "nothing", "text": "blue whale"}]
    body = {"model": "reranker", "query": "blue whale", "documents": documents}
    for fields, best in ((["title"], 0), (["text"], 1)):
        results = api.http.post(path, json={**body, "rank_fields": fields}).json()["results"]
        assert [(r["index"], r["relevance_score"]) for r in results] == [(best, 1.0), (1 - best, 0.0)]


@PATHS
def test_voyages_names_limit_the_results_and_refuse_long_documents(api: Service, path: str) -> None:
    body = {"model": "reranker", "query": "q", "documents": ["w " * 50, "q"]}
    answer = api.http.post(path, json={**body, "top_k": 1}).json()
    assert [r["index"] for r in answer["data"]] == [r["index"] for r in answer["results"]] == [1]
    refused = api.http.post(path, json={**body, "truncation": False})
    assert refused.status_code == 400
    assert "document 0 cannot be scored: the text is longer than the model reads" in message_of(refused)


def test_a_pair_is_scored_once(api: Service) -> None:
    body = {"model": "reranker", "query": "only once", "documents": ["a", "b"]}
    first, again = (api.http.post("/v1/rerank", json=body) for _ in range(2))
    assert first.headers["x-semel-cache"].startswith("hits=0; computed=2")
    assert again.headers["x-semel-cache"].startswith("hits=2; computed=0")
    assert first.json()["results"] == again.json()["results"]


@PATHS
def test_fields_that_were_not_requested_are_left_out(api: Service, path: str) -> None:
    body = {"query": "q", "documents": [{"text": "a", "title": "t"}, "b"], "top_n": 1}
    answer = api.http.post(path, json=body).json()
    assert [set(result) for result in answer["results"]] == [{"index", "relevance_score"}]
    with_documents = api.http.post(path, json={**body, "return_documents": True}).json()["results"]
    assert with_documents[0]["document"]["text"] in ("a", "b")


@pytest.mark.parametrize("model", ["fake", "reranker"])
@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"query": "", "documents": ["a"]}, 400, "the query is empty"),
        ({"query": "q", "documents": []}, 400, "documents is an empty list"),
        ({"query": "q", "documents": ["a", ""]}, 400, "text 1 is empty"),
        ({"query": "q", "documents": [{"title": "a"}]}, 400, 'document 0 has no string in "text"'),
        ({"query": "q", "documents": ["a", "poison"]}, 400, "document 1 cannot be scored"),
        ({"query": "q", "documents": ["a"] * 2049}, 400, "one request takes at most 2048"),
        ({"query": "q", "documents": ["a"], "top_n": 0}, 400, "top_n: "),
        ({"query": "q", "documents": ["a"], "top_n": 1, "top_k": 2}, 400, "top_n and top_k"),
        ({"query": "q", "documents": [{"text": "a"}], "rank_fields": ["title"]}, 400, "which rank_fields names"),
        ({"query": "q", "documents": ["a"], "model": "nope"}, 404, "no model named 'nope'"),
    ],
)
def test_a_request_that_cannot_be_used_is_refused(
    api: Service, model: str, body: dict[str, Any], status: int, message: str
) -> None:
    answer = api.http.post("/v2/rerank", json={"model": model, **body})
    assert (answer.status_code, dialect_of(answer)) == (status, "cohere")
    assert message in message_of(answer)


def test_a_query_that_cannot_be_scored_is_called_the_query(api: Service) -> None:
    answer = api.http.post("/v1/rerank", json={"query": "poison", "documents": ["a"]})
    assert (answer.status_code, "the query cannot be scored" in message_of(answer)) == (400, True)
