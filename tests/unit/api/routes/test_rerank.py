"""POST /v1/rerank and /v2/rerank in this process."""

from typing import Any

import numpy as np
import pytest

from tests.support.answers import dialect_of, message_of
from tests.support.service import Service

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
