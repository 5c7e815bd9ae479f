"""Fields that semel does not honour: each is refused by its name, on every route and in batch lines."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from semel.api.dialects.strict import HARMLESS
from tests.support.answers import message_of
from tests.support.processes import wait_until
from tests.support.service import Service, service

REQUESTS: dict[str, dict[str, Any]] = {
    "/v1/embeddings": {"input": "a", "model": "fake"},
    "/v2/embed": {"texts": ["a"], "model": "fake", "input_type": "clustering"},
    "/v1/rerank": {"query": "a", "documents": ["b"], "model": "fake"},
    "/v2/rerank": {"query": "a", "documents": ["b"], "model": "fake"},
    "/embed": {"inputs": "a"},
    "/rerank": {"query": "a", "texts": ["b"]},
    "/similarity": {"inputs": {"source_sentence": "a", "sentences": ["b"]}},
    "/tokenize": {"inputs": "a"},
}

NOT_HONOURED: dict[str, dict[str, Any]] = {
    "/v1/embeddings": {
        "output_dtype": "int8",  # voyageai
        "output_dimension": 4,
        "truncate_prompt_tokens": 10,  # vLLM
        "embed_dtype": "float16",
        "use_activation": False,
        "add_special_tokens": False,
        "embedding_type": "binary",  # Jina
        "normalized": False,
        "late_chunking": True,
        "task": "retrieval.query",
        "modality": "image",  # infinity
        "embeding_format": "base64",  # misspelt
    },
    "/v2/embed": {"max_tokens": 10, "images": ["data:…"], "inputs": [], "task": "x"},
    "/v1/rerank": {"max_tokens_per_doc": 10, "rank_fields": ["title"], "top_k": 1, "raw_scores": True},
    "/v2/rerank": {"max_tokens_per_doc": 10, "top_k": 1},
    "/embed": {"normalise": False, "pooling": "cls"},
    "/rerank": {"top_n": 1, "raw_scores": True},
    "/similarity": {"raw_scores": True},
    "/tokenize": {"truncate": True},
}

CASES = [(path, name, value) for path, fields in NOT_HONOURED.items() for name, value in fields.items()]


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with service(tmp_path_factory.mktemp("strict")) as running:
        yield running


@pytest.mark.parametrize(("path", "name", "value"), CASES)
def test_a_field_that_is_not_honoured_is_refused_by_its_name(api: Service, path: str, name: str, value: Any) -> None:
    answer = api.http.post(path, json={**REQUESTS[path], name: value})
    assert answer.status_code in (400, 422)
    assert name in message_of(answer)


@pytest.mark.parametrize("path", REQUESTS)
def test_harmless_fields_and_fields_that_are_null_are_accepted(api: Service, path: str) -> None:
    more = {**dict.fromkeys(HARMLESS, "x"), "unset_by_the_client": None}
    answer = api.http.post(path, json={**more, **REQUESTS[path]})
    assert answer.status_code == 200, answer.text


def test_a_field_of_an_inner_object_is_refused_too(api: Service) -> None:
    body = {**REQUESTS["/similarity"], "parameters": {"truncate": True, "normalize": False}}
    answer = api.http.post("/similarity", json=body)
    assert answer.status_code == 422
    assert "parameters.normalize" in message_of(answer)


def test_a_line_of_a_batch_is_as_strict_as_its_route(api: Service, tmp_path: Path) -> None:
    body = {"model": "fake", "input": "a", "output_dtype": "int8"}
    line = json.dumps({"custom_id": "1", "method": "POST", "url": "/v1/embeddings", "body": body})
    stored = api.http.post("/v1/files", data={"purpose": "batch"}, files={"file": line.encode()}).json()
    order = {"input_file_id": stored["id"], "endpoint": "/v1/embeddings", "completion_window": "24h"}
    batch = api.http.post("/v1/batches", json=order).json()
    wait_until(lambda: api.http.get(f"/v1/batches/{batch['id']}").json()["status"] == "completed")
    batch = api.http.get(f"/v1/batches/{batch['id']}").json()
    error = api.http.get(f"/v1/files/{batch['error_file_id']}/content").json()
    assert error["response"]["status_code"] == 400
    assert "output_dtype" in error["response"]["body"]["error"]["message"]


@pytest.mark.parametrize("name", ["input_file_id", "endpoint"])
def test_half_a_surrogate_pair_in_a_batch_is_refused(api: Service, name: str) -> None:
    order = {"input_file_id": "file-a", "endpoint": "/v1/embeddings", "completion_window": "24h", name: "file\ud800"}
    answer = api.http.post("/v1/batches", content=json.dumps(order), headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert name in message_of(answer)
