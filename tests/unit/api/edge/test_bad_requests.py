"""Requests that no route can take: unknown paths, wrong methods, fields and bodies; and defects behind the routes."""

from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.support.answers import dialect_of, message_of
from tests.support.service import Service


@pytest.mark.parametrize("path", ["/nowhere", "/v1/nowhere", "/page/../app.py", "/v1/jobs/x/y"])
def test_an_unknown_path_is_named_and_the_documentation_too(api: Service, path: str) -> None:
    answer = api.http.get(path)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
    assert "/docs" in message_of(answer)


@pytest.mark.parametrize(
    ("method", "path", "dialect"),
    [("GET", "/v1/embeddings", "openai"), ("GET", "/v2/rerank", "cohere"), ("PUT", "/embed", "tei")],
)
def test_a_wrong_method_is_405_in_the_dialect_of_the_path(api: Service, method: str, path: str, dialect: str) -> None:
    answer = api.http.request(method, path)
    assert (answer.status_code, dialect_of(answer)) == (405, dialect)


@pytest.mark.parametrize(
    ("path", "sent", "dialect", "status", "place"),
    [
        ("/v1/embeddings", {}, "openai", 400, "input: "),
        ("/v1/embeddings", {"input": "x", "dimensions": 0}, "openai", 400, "dimensions: "),
        ("/v1/rerank", {"query": "q"}, "cohere", 400, "documents: "),
        ("/v2/embed", {"texts": ["a"]}, "cohere", 400, "input_type: "),
        ("/v2/embed", {"texts": ["a"], "input_type": "other"}, "cohere", 400, "input_type: "),
        ("/embed", {}, "tei", 422, "inputs: "),
        ("/similarity", {"inputs": {"sentences": ["a"]}}, "tei", 422, "inputs.source_sentence: "),
        ("/v1/batches", {"endpoint": "/v1/embeddings"}, "openai", 400, "input_file_id: "),
        ("/v1/cache/prune", {"older": 1}, "openai", 400, "older: "),
    ],
)
def test_a_field_that_is_wrong_is_named_in_the_shape_of_the_dialect(
    api: Service, path: str, sent: dict[str, Any], dialect: str, status: int, place: str
) -> None:
    answer = api.http.post(path, json=sent)
    assert (answer.status_code, dialect_of(answer)) == (status, dialect)
    assert message_of(answer).startswith(place)
    if dialect == "openai":
        assert answer.json()["error"]["param"] == place.removesuffix(": ")


@pytest.mark.parametrize("content", [b"{oops", b"", b"[1]", b'"text"', b"\xff"])
@pytest.mark.parametrize(("path", "status"), [("/v1/embeddings", 400), ("/v2/rerank", 400), ("/embed", 422)])
def test_a_body_that_is_no_json_object_is_bad_input(api: Service, path: str, content: bytes, status: int) -> None:
    answer = api.http.post(path, content=content, headers={"content-type": "application/json"})
    assert answer.status_code == status
    assert message_of(answer)


@pytest.mark.parametrize(
    ("path", "parameter"),
    [
        ("/v1/jobs?limit=0", "limit"),
        ("/v1/jobs?limit=x", "limit"),
        ("/v1/jobs?status=sleeping", "status"),
        ("/v1/batches?limit=101", "limit"),
        ("/v1/files?order=sideways", "order"),
        ("/v1/jobs/x/results?format=xml", "format"),
        ("/v1/jobs/x/failed?after=-2", "after"),
    ],
)
def test_a_query_parameter_that_is_wrong_is_named(api: Service, path: str, parameter: str) -> None:
    answer = api.http.get(path)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, parameter)
    assert answer.json()["error"]["code"] == "invalid_input"


@pytest.mark.parametrize(
    ("path", "sent"),
    [
        ("/v1/embeddings", {"input": "unexpected"}),
        ("/v2/embed", {"texts": ["unexpected"], "input_type": "clustering"}),
        ("/embed", {"inputs": "unexpected"}),
        ("/v1/rerank", {"query": "q", "documents": ["unexpected"]}),
    ],
)
def test_a_defect_of_the_pipeline_is_a_500_of_the_dialect(
    api: Service, monkeypatch: pytest.MonkeyPatch, path: str, sent: dict[str, Any]
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise KeyError("a defect")

    monkeypatch.setattr(api.services.pipeline, "steps", broken)
    with capture_logs() as lines:
        answer = api.http.post(path, json=sent)
    assert answer.status_code == 500
    assert "unexpected error" in message_of(answer)
    assert [(line["event"], line["path"]) for line in lines] == [("unexpected error", path)]
