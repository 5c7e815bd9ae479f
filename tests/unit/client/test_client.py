"""The client's calls: what each sends, and what it makes of the answer."""

import base64
import json
import tracemalloc
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest

from semel.client import DEFAULT_URL, Classification, Client, Relevance
from semel.client.exchange import Exchange
from semel.errors import BadInputError, OverloadedError, TimedOutError
from semel.values.job import Counts, JobStatus
from semel.values.text import ItemError
from tests.support.remote import Server, client_of, job
from tests.support.values import vectors


def sent(server: Server, at: int = -1) -> Any:
    """The JSON body of a request."""
    return json.loads(server.requests[at].content)


# Where the server is


def test_the_address_and_the_key_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEMEL_URL", "http://elsewhere:1/")
    monkeypatch.setenv("SEMEL_API_KEY", "from the environment")
    with Client() as client:
        assert client.url == "http://elsewhere:1"
        assert client._exchange._http.headers["authorization"] == "Bearer from the environment"


def test_arguments_win_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEMEL_URL", "http://elsewhere:1")
    monkeypatch.setenv("SEMEL_API_KEY", "from the environment")
    with Client("http://here:2", api_key="mine") as client:
        assert client.url == "http://here:2"
        assert client._exchange._http.headers["authorization"] == "Bearer mine"


def test_the_default_is_the_address_of_semel_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SEMEL_URL", raising=False)
    monkeypatch.delenv("SEMEL_API_KEY", raising=False)
    with Client() as client:
        assert client.url == DEFAULT_URL == "http://127.0.0.1:8700"
        assert "authorization" not in client._exchange._http.headers


# Embed and rerank


def test_vectors_keep_every_bit_on_their_way(client: Client, server: Server) -> None:
    rows = vectors(3)
    data = [{"embedding": base64.b64encode(row.astype("<f4").tobytes()).decode()} for row in rows]
    server.answers(json={"data": data})
    answer = client.embed(["one", "two", "three"], model="fake")
    assert answer.dtype == np.float32
    np.testing.assert_array_equal(answer, rows)
    assert sent(server) == {
        "input": ["one", "two", "three"], "model": "fake", "encoding_format": "base64", "prompt_name": "",
        "truncate": True,
    }  # fmt: skip


def test_options_of_embed_are_sent(client: Client, server: Server) -> None:
    server.answers(json={"data": [{"embedding": ""}]})
    client.embed(["one"], dimensions=2, input_type="query", prompt_name="p", truncate=False)
    body = sent(server)
    assert (body["dimensions"], body["input_type"], body["prompt_name"], body["truncate"]) == (2, "query", "p", False)


def test_documents_come_back_in_the_order_of_the_answer(client: Client, server: Server) -> None:
    results = [{"index": 2, "relevance_score": 0.9}, {"index": 0, "relevance_score": -0.5}]
    server.answers(json={"results": results})
    assert client.rerank("q", ["a", "b", "c"], top_n=2) == [Relevance(2, 0.9), Relevance(0, -0.5)]
    assert sent(server) == {"query": "q", "documents": ["a", "b", "c"], "model": None, "top_n": 2}


def test_all_documents_are_asked_for_by_leaving_the_number_out(client: Client, server: Server) -> None:
    server.answers(json={"results": []})
    client.rerank("q", ["a"])
    assert "top_n" not in sent(server)


# Jobs


def test_a_job_is_sent_as_lines_with_its_options_in_the_query(client: Client, server: Server) -> None:
    server.answers(json=job("in_progress"))
    submitted = client.submit(
        ["one", {"text": "two", "id": 7}], model="fake", truncate=False, metadata={"a": "ä"}, webhook_url=None,
        idempotency_key="once",
    )  # fmt: skip
    (request,) = server.requests
    assert (submitted.id, submitted.status) == ("job_1", JobStatus.IN_PROGRESS)
    assert [json.loads(line) for line in request.content.splitlines()] == [{"text": "one"}, {"text": "two", "id": 7}]
    assert request.headers["content-type"] == "application/x-ndjson"
    assert request.headers["idempotency-key"] == "once"
    params = dict(request.url.params)
    assert json.loads(params.pop("metadata")) == {"a": "ä"}
    assert params == {"model": "fake", "truncate": "false"}, "what is None is left to the server"


def test_bare_texts_go_into_the_field_that_the_job_names(client: Client, server: Server) -> None:
    server.answers(json=job())
    client.submit(["one"], text_field="body")
    assert json.loads(server.requests[0].content) == {"body": "one"}


class Counting(httpx.BaseTransport):
    """Counts the bytes of a body while they come, and answers with the sum."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        assert isinstance(request.stream, httpx.SyncByteStream)
        total = sum(len(block) for block in request.stream)
        return httpx.Response(200, json=job(metadata={"bytes": str(total)}))


def test_the_texts_of_a_job_are_never_in_memory_as_a_whole() -> None:
    client = Client("http://semel.test")
    client._exchange = Exchange(client.url, api_key="", timeout_s=5.0, transport=Counting())
    tracemalloc.start()
    submitted = client.submit("x" * 1000 for _ in range(10_000))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    client.close()
    assert int(submitted.metadata["bytes"]) > 10_000_000
    assert peak < 3_000_000


def test_a_refused_job_is_not_sent_again(client: Client, server: Server, pauses: list[float]) -> None:
    server.refuses(429, "rate_limit_exceeded", "too much work waits", retry_after="5")
    with pytest.raises(OverloadedError):
        client.submit(["one"])
    assert (len(server.requests), pauses) == (1, [])


def test_a_job_has_its_counts_and_its_error(client: Client, server: Server) -> None:
    server.answers(json=job("failed", error={"code": "timeout", "message": "too late"}))
    failed = client.job("job_1")
    assert failed.counts == Counts(computed=3, tokens=9)
    assert (failed.total, failed.error) == (3, ItemError("timeout", "too late"))


def test_jobs_are_filtered_by_the_server(client: Client, server: Server) -> None:
    server.answers(json={"data": [job(), job()]})
    assert len(client.jobs(limit=2, status="completed")) == 2
    assert dict(server.requests[0].url.params) == {"limit": "2", "status": "completed"}


@pytest.mark.parametrize(
    ("call", "request_line"),
    [
        ("cancel", "POST /v1/jobs/job_1/cancel"),
        ("retry", "POST /v1/jobs/job_1/retry"),
        ("delete", "DELETE /v1/jobs/job_1"),
    ],
)
def test_what_is_done_to_a_job(client: Client, server: Server, call: str, request_line: str) -> None:
    server.answers(json=job())
    getattr(client, call)("job_1")
    (request,) = server.requests
    assert f"{request.method} {request.url.path}" == request_line


def test_waiting_polls_until_the_end_and_reports_each_poll(client: Client, server: Server, pauses: list[float]) -> None:
    for status in ("validating", "in_progress", "finalizing", "completed"):
        server.answers(json=job(status))
    seen: list[str] = []
    ended = client.wait("job_1", on_progress=lambda polled: seen.append(polled.status.value))
    assert ended.status is JobStatus.COMPLETED
    assert seen == ["validating", "in_progress", "finalizing", "completed"]
    assert pauses == pytest.approx([0.02, 0.03, 0.045])


def test_a_job_that_failed_is_returned_and_not_raised(client: Client, server: Server) -> None:
    server.answers(json=job("failed"))
    assert client.wait("job_1").status is JobStatus.FAILED


def test_a_poll_is_never_later_than_half_a_second(client: Client, server: Server, pauses: list[float]) -> None:
    for _ in range(20):
        server.answers(json=job("in_progress"))
    server.answers(json=job())
    client.wait("job_1")
    assert max(pauses) == pauses[-1] == 0.5


def test_waiting_ends_at_the_timeout(client: Client, server: Server, pauses: list[float]) -> None:
    server.answers(json=job("in_progress"))
    with pytest.raises(TimedOutError, match="job job_1 is still in_progress after 0 s and continues"):
        client.wait("job_1", timeout_s=0)


# Vectors, models, readiness


def test_imported_vectors_are_sent_as_lines_of_float32(client: Client, server: Server) -> None:
    server.answers(json={"stored": 1, "present": 1})
    rows: Iterator[tuple[str, Any]] = iter([("one", np.array([0.1, 1], np.float64)), ("two", [1, 2])])
    assert client.put_vectors(rows, model="fake", prompt_name="query") == (1, 1)
    (request,) = server.requests
    assert (request.method, request.url.path) == ("PUT", "/v1/cache/vectors")
    assert dict(request.url.params) == {"model": "fake", "prompt_name": "query"}
    first, second = (json.loads(line) for line in request.content.splitlines())
    assert first == {"text": "one", "embedding": [float(np.float32(0.1)), 1.0]}
    assert second == {"text": "two", "embedding": [1.0, 2.0]}


def test_a_refused_import_says_why(client: Client, server: Server) -> None:
    server.refuses(400, "invalid_input", "the vector of text 3 differs from the one that 'fake' computes here")
    with pytest.raises(BadInputError, match="the vector of text 3 differs"):
        client.put_vectors([("one", [1.0])], model="fake")


def test_models_are_listed(client: Client, server: Server) -> None:
    model = {"id": "fake", "dimensions": 4, "max_tokens": 20, "prompts": ["query"], "fingerprint": "ab", "live": True}
    newer = {"default": True, "kind": "sparse", "fingerprints": {"": "ab", "query": "cd"}}
    server.answers(json={"data": [{**model, "created": 1}, {**model, **newer}]})
    older_server, listed = client.models()
    assert vars(older_server) == {**model, "default": False, "kind": "embed", "fingerprints": {}}
    assert vars(listed) == {**model, **newer}


def test_the_parts_of_a_server_that_is_not_ready_are_reported(client: Client, server: Server) -> None:
    server.answers(503, json={"status": "unavailable", "parts": {"database": "ok", "redis": "does not answer"}})
    assert client.ready() == {"database": "ok", "redis": "does not answer"}


def test_leaving_the_block_closes_the_connections(server: Server) -> None:
    with client_of(server) as client:
        pass
    assert client._exchange._http.is_closed


def test_an_address_that_ends_in_v1_is_the_same_server() -> None:
    with Client("http://here:2/v1/") as client:
        assert client.url == "http://here:2"
        assert repr(client) == "Client('http://here:2')"


# Labels and sparse vectors


def test_sparse_vectors_are_read_in_the_order_of_the_texts(client: Client, server: Server) -> None:
    server.answers(json=[[{"index": 3, "value": 0.5}, {"index": 9, "value": 2.0}], []])
    first, second = client.embed_sparse(["a", "b"], model="s", prompt_name="query")
    assert (first.indices.tolist(), first.values.tolist(), len(second.indices)) == ([3, 9], [0.5, 2.0], 0)
    assert sent(server) == {"model": "s", "prompt_name": "query", "truncate": True, "inputs": ["a", "b"]}


def test_many_texts_are_sent_in_several_requests_for_sparse_vectors(client: Client, server: Server) -> None:
    for count in (1024, 1):
        server.answers(json=[[{"index": count, "value": 1.0}]] * count)
    rows = client.embed_sparse([f"text {i}" for i in range(1025)])
    assert [row.indices[0] for row in rows] == [1024] * 1024 + [1]


def test_texts_and_pairs_are_classified(client: Client, server: Server) -> None:
    row = [{"label": "good", "score": 0.9}, {"label": "bad", "score": 0.1}]
    server.answers(json=[row, row[::-1]])
    first, second = client.classify(["a", ("b", "c")], raw_scores=True)
    assert first == second == Classification("good", 0.9, {"good": 0.9, "bad": 0.1})
    assert list(second.scores) == ["good", "bad"]
    assert sent(server) == {"model": None, "truncate": True, "raw_scores": True, "inputs": [["a"], ["b", "c"]]}


def test_long_texts_to_classify_are_sent_in_several_requests(client: Client, server: Server) -> None:
    row = [{"label": "good", "score": 0.9}]
    for _ in range(2):
        server.answers(json=[row])
    assert len(client.classify(["x" * 600_000, ("y" * 300_000, "z" * 300_000)])) == 2
    assert [len(sent(server, at)["inputs"]) for at in (-2, -1)] == [1, 1]


def test_a_single_text_is_classified_as_one(client: Client, server: Server) -> None:
    server.answers(json=[[{"label": "good", "score": 0.9}]])
    assert [each.label for each in client.classify("hello")] == ["good"]
    assert sent(server)["inputs"] == [["hello"]]
