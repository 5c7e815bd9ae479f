"""POST /v1/embeddings in this process."""

import base64
import json
from typing import Any

import numpy as np
import pytest

from tests.support.answers import message_of
from tests.support.service import Service
from tests.support.workers import no_worker


def test_vectors_come_in_order_with_duplicates(api: Service) -> None:
    answer = api.http.post("/v1/embeddings", json={"input": ["one", "two", "one"]})
    assert answer.status_code == 200, answer.text
    data = answer.json()["data"]
    assert [item["index"] for item in data] == [0, 1, 2]
    assert data[0]["embedding"] == data[2]["embedding"] != data[1]["embedding"]
    assert answer.headers["x-semel-cache"] == "hits=0; computed=2; coalesced=1"


def test_the_second_request_is_answered_from_the_cache(api: Service) -> None:
    body = {"model": "fake", "input": ["asked twice"]}
    first, second = (api.http.post("/v1/embeddings", json=body) for _ in range(2))
    assert second.json() == first.json()
    assert second.headers["x-semel-cache"] == "hits=1; computed=0; coalesced=0"
    assert (second.headers["x-inference-time"], second.headers["x-queue-time"]) == ("0.0", "0.0")


def test_base64_holds_the_same_numbers(api: Service) -> None:
    body = {"input": "in two shapes"}
    plain = api.http.post("/v1/embeddings", json=body).json()["data"][0]["embedding"]
    packed = api.http.post("/v1/embeddings", json={**body, "encoding_format": "base64"}).json()["data"][0]["embedding"]
    assert np.frombuffer(base64.b64decode(packed), "<f4").tolist() == np.array(plain, np.float32).tolist()


def test_usage_counts_the_tokens_of_hits_too(api: Service) -> None:
    for _ in range(2):
        answer = api.http.post("/v1/embeddings", json={"input": ["three words here", "two words"]})
        assert answer.json()["usage"] == {"prompt_tokens": 5, "total_tokens": 5}


def test_a_prompt_makes_another_vector_than_the_bare_text(api: Service) -> None:
    def embedded(text: str, **options: str) -> list[float]:
        body = {"model": "prompted", "input": text, **options}
        return api.http.post("/v1/embeddings", json=body).json()["data"][0]["embedding"]  # type: ignore[no-any-return]

    assert embedded("cat", prompt_name="query") == embedded("cat", input_type="query") == embedded("find cat")
    assert embedded("cat", input_type="document") == embedded("text cat") != embedded("cat")


def test_a_text_above_the_limit_is_cut_and_the_header_counts_it(api: Service) -> None:
    answer = api.http.post("/v1/embeddings", json={"input": ["w " * 50, "short"]})
    assert (answer.status_code, answer.headers["x-semel-truncated"]) == (200, "1")


def test_a_large_request_keeps_its_order_and_leaves_no_job(api: Service) -> None:
    texts = [f"{i} " + "large " * 15 for i in range(900)]
    answer = api.http.post("/v1/embeddings", json={"input": texts})
    assert "x-inference-time" not in answer.headers
    alone = api.http.post("/v1/embeddings", json={"input": [texts[700]]})
    assert alone.headers["x-semel-cache"].startswith("hits=1")
    assert api.http.get("/v1/jobs").json()["data"] == []
    assert answer.json()["data"][700]["embedding"] == alone.json()["data"][0]["embedding"]


@pytest.mark.parametrize(
    ("options", "read"),
    [
        ({"truncate_prompt_tokens": 5}, range(5)),
        ({"max_tokens": 5, "truncate_side": "left"}, range(45, 50)),
        ({"truncation_side": "left"}, range(30, 50)),
        ({"document_tokens": 3}, range(3)),
    ],
)
def test_a_request_says_which_part_of_a_long_text_is_read(api: Service, options: dict[str, Any], read: range) -> None:
    long, part = (" ".join(f"word{i}" for i in words) for words in (range(50), read))
    answer = api.http.post("/v1/embeddings", json={"input": long, **options})
    assert answer.headers["x-semel-truncated"] == "1"
    alone = api.http.post("/v1/embeddings", json={"input": part}).json()["data"][0]["embedding"]
    assert answer.json()["data"][0]["embedding"] == alone


def test_a_variant_is_a_space_of_its_own_in_the_cache(api: Service) -> None:
    bodies = [{"input": "kept apart", **options} for options in ({}, {"max_tokens": 5}, {"max_tokens": 20})]
    answers = [api.http.post("/v1/embeddings", json=body).headers["x-semel-cache"] for body in (*bodies, bodies[1])]
    assert [answer.split(";")[0] for answer in answers] == ["hits=0", "hits=0", "hits=1", "hits=1"]


@pytest.mark.parametrize("name", ["normalize", "normalized"])
def test_vectors_keep_the_length_that_the_model_gives_on_request(api: Service, name: str) -> None:
    plain, whole = (
        np.array(api.http.post("/v1/embeddings", json={"input": "by length", **options}).json()["data"][0]["embedding"])
        for options in ({}, {name: False})
    )
    assert np.linalg.norm(plain) == pytest.approx(1, abs=1e-6)
    assert np.linalg.norm(whole) > 1000
    np.testing.assert_allclose(whole / np.linalg.norm(whole), plain, atol=1e-6)


def test_numbers_come_in_the_type_and_size_that_voyages_clients_request(api: Service) -> None:
    body = {"input": "as bytes", "output_dtype": "int8", "output_dimension": 16, "truncation": True}
    numbers = api.http.post("/v1/embeddings", json=body).json()["data"][0]["embedding"]
    plain = api.http.post("/v1/embeddings", json={"input": "as bytes"}).json()["data"][0]["embedding"]
    assert numbers == np.rint(np.array(plain, np.float32) * 127).astype(int).tolist()


def test_a_task_of_jina_chooses_the_prompt(api: Service) -> None:
    def embedded(text: str, **options: str) -> list[float]:
        body = {"model": "prompted", "input": text, **options}
        return api.http.post("/v1/embeddings", json=body).json()["data"][0]["embedding"]  # type: ignore[no-any-return]

    assert embedded("owl", task="retrieval.query") == embedded("find owl")
    assert embedded("owl", task="retrieval.passage") == embedded("text owl")


@pytest.mark.parametrize(
    ("body", "status", "code", "message"),
    [
        ({"input": []}, 400, "empty_input", "empty list"),
        ({"input": ["x"] * 2049}, 400, "too_many_texts", "POST /v1/jobs"),
        ({"input": [[1, 2], [3]]}, 400, "invalid_input", "check_embedding_ctx_length=False"),
        ({"input": {"a": 1}}, 400, "invalid_input", "not dict"),
        ({"input": "x", "model": "nope"}, 404, "model_not_found", "no model named 'nope'"),
        ({"input": "x", "model": "a\nb"}, 400, "invalid_input", "cannot be printed"),
        ({"input": "x", "model": "prompted", "prompt_name": "nope"}, 400, "prompt_not_found", "document, query"),
        ({"input": "x", "model": "prompted", "task": "nope"}, 400, "prompt_not_found", "document, query"),
        ({"input": "x", "max_tokens": 21}, 400, "invalid_input", "reads at most 20 tokens, not 21"),
        ({"input": "x", "model": "reranker", "normalize": False}, 400, "invalid_input", "cross-encoder"),
        ({"input": "x", "dimensions": 16, "output_dimension": 7}, 400, "invalid_input", "two names of one parameter"),
        ({"input": "x", "model": "reranker"}, 400, "invalid_input", "cross-encoder"),
        ({"input": "x", "dimensions": 7}, 400, "invalid_input", "cannot be cut to 7"),
        ({"input": "x", "input_type": "query", "prompt_name": "query"}, 400, "invalid_input", "only one of them"),
    ],
)
def test_a_request_that_cannot_be_used_is_refused(
    api: Service, body: dict[str, Any], status: int, code: str, message: str
) -> None:
    answer = api.http.post("/v1/embeddings", json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert message in message_of(answer)


@pytest.mark.parametrize(
    ("texts", "index", "message"),
    [
        (["a", ""], 1, "is empty"),
        (["a", 3], 1, "is int, not a string"),
        ([None], 0, "is NoneType"),
        (["a", "b", "poison"], 2, "has no vector"),
        (["a\ud800b"], 0, "\\ud800"),
    ],
)
def test_the_text_that_is_bad_is_named(api: Service, texts: list[Any], index: int, message: str) -> None:
    content = json.dumps({"input": texts}).encode()
    answer = api.http.post("/v1/embeddings", content=content, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_text")
    assert answer.json()["error"]["param"] == f"input[{index}]"
    assert message in message_of(answer)


def test_truncate_false_refuses_a_long_text(api: Service) -> None:
    answer = api.http.post("/v1/embeddings", json={"input": ["fine", "w " * 50], "truncate": False})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "input[1]")
    assert "longer than the model reads" in message_of(answer)


def test_truncate_false_refuses_a_text_above_the_limit_of_the_request(api: Service) -> None:
    body = {"input": ["one two three four five", "six words are one too many"], "max_tokens": 5, "truncate": False}
    answer = api.http.post("/v1/embeddings", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "input[1]")
    assert api.http.post("/v1/embeddings", json={**body, "input": body["input"][:1]}).status_code == 200


def test_without_a_worker_a_hit_is_served_and_a_miss_is_503(api: Service) -> None:
    api.http.post("/v1/embeddings", json={"input": "known before the worker left"})
    with no_worker(api):
        hit = api.http.post("/v1/embeddings", json={"input": "known before the worker left"})
        miss = api.http.post("/v1/embeddings", json={"input": "not known"})
    assert (hit.status_code, miss.status_code, miss.headers["retry-after"]) == (200, 503, "2")
    assert "start one: semel worker --device cpu" in message_of(miss)
