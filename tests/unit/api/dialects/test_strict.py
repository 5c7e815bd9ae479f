"""Fields that semel does not honour: each is refused by its name, on every route and in batch lines."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from semel.api.dialects.strict import HARMLESS, StrictRequest
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
        "output_dtype": "int4",  # Voyage has no such type
        "embed_dtype": "float16",  # vLLM
        "endianness": "big",
        "use_activation": False,
        "add_special_tokens": False,
        "embedding_type": "int8",  # Jina has no such type
        "late_chunking": True,
        "modality": "image",  # infinity
        "embeding_format": "base64",  # misspelt
    },
    "/v2/embed": {"images": ["data:…"], "inputs": [], "task": "x", "dimensions": 4},
    "/v1/rerank": {"max_chunks_per_doc": 2, "rank_field": "title"},
    "/v2/rerank": {"max_chunks_per_doc": 2, "truncate": True},
    "/embed": {"normalise": False, "pooling": "cls", "truncation_direction": "middle"},
    "/rerank": {"top_n": 1, "max_tokens_per_doc": 10, "use_activation": False},
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
    body = {"model": "fake", "input": "a", "late_chunking": True}
    line = json.dumps({"custom_id": "1", "method": "POST", "url": "/v1/embeddings", "body": body})
    stored = api.http.post("/v1/files", data={"purpose": "batch"}, files={"file": line.encode()}).json()
    order = {"input_file_id": stored["id"], "endpoint": "/v1/embeddings", "completion_window": "24h"}
    batch = api.http.post("/v1/batches", json=order).json()
    wait_until(lambda: api.http.get(f"/v1/batches/{batch['id']}").json()["status"] == "completed")
    batch = api.http.get(f"/v1/batches/{batch['id']}").json()
    error = api.http.get(f"/v1/files/{batch['error_file_id']}/content").json()
    assert error["response"]["status_code"] == 400
    assert "late_chunking" in error["response"]["body"]["error"]["message"]


@pytest.mark.parametrize("name", ["input_file_id", "endpoint"])
def test_half_a_surrogate_pair_in_a_batch_is_refused(api: Service, name: str) -> None:
    order = {"input_file_id": "file-a", "endpoint": "/v1/embeddings", "completion_window": "24h", name: "file\ud800"}
    answer = api.http.post("/v1/batches", content=json.dumps(order), headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert name in message_of(answer)


def kinds(base: type[StrictRequest] = StrictRequest) -> list[type[StrictRequest]]:
    return [kind for sub in base.__subclasses__() for kind in (sub, *kinds(sub))]


@pytest.mark.parametrize("kind", [kind for kind in kinds() if "example" in kind.model_json_schema()])
def test_a_known_field_that_is_null_has_its_default(kind: type[StrictRequest]) -> None:
    """Clients send null for what their caller did not set, langchain-cohere for `truncate`."""
    example = kind.model_json_schema()["example"]
    for name, field in kind.model_fields.items():
        if not field.is_required():
            without = {key: value for key, value in example.items() if key != name}
            assert kind.model_validate({**without, name: None}) == kind.model_validate(without), name


def test_a_required_field_that_is_null_is_missing(api: Service) -> None:
    assert "input" in message_of(api.http.post("/v1/embeddings", json={"input": None}))
    assert api.http.post("/v1/embeddings", json={"input": None}).status_code == 400
