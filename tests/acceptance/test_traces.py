"""One trace from the HTTP request over the queue to the device's batch and the store."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from semel.errors import BadInputError
from tests.support.collector import Collector, Exported, collector
from tests.support.processes import Processes, processes, wait_until

SERVER, PRODUCER, CONSUMER = 2, 4, 5
"""Kinds of span, of opentelemetry/proto/trace/v1/trace.proto."""

SETTINGS = {
    "SEMEL_CHUNK_TEXTS": "5",
    "SEMEL_LOG_FORMAT": "json",
    "SEMEL_LOG_LEVEL": "debug",
    "OTEL_BSP_SCHEDULE_DELAY": "100",
}


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Processes, Collector]]:
    with collector() as spans:
        settings = {**SETTINGS, "SEMEL_OTLP_ENDPOINT": spans.url}
        with processes(tmp_path_factory.mktemp("traced"), model="fail_on=poison", **settings) as running:
            yield running, spans


def only(spans: list[Exported], name: str) -> Exported:
    (span,) = [span for span in spans if span.name == name]
    return span


def children(spans: list[Exported], parent: Exported) -> list[str]:
    return sorted(span.name for span in spans if span.parent == parent.id)


def lines(semel: Processes, part: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (semel.folder / f"{part}.log").read_text().splitlines() if line[:1] == "{"]


def test_a_request_is_one_trace(traced: tuple[Processes, Collector]) -> None:
    semel, spans = traced
    answer = httpx.post(f"{semel.url}/v1/embeddings", json={"model": "fake", "input": ["one request", "two texts"]})
    server = spans.wait_for("POST /v1/embeddings", request=answer.headers["x-request-id"])
    wait_until(lambda: "run/semel.embed_texts" in [span.name for span in spans.of(server.trace)])
    found = spans.of(server.trace)
    send, publish, run, batch, store = (
        only(found, name)
        for name in (
            "semel.send",
            "apply_async/semel.embed_texts",
            "run/semel.embed_texts",
            "semel.batch",
            "semel.store",
        )
    )
    assert (server.kind, publish.kind, run.kind) == (SERVER, PRODUCER, CONSUMER)
    assert (server.service, publish.service) == ("semel-api", "semel-api")
    assert {span.service for span in (run, batch, store)} == {"semel-worker"}
    assert server.parent == ""
    assert children(found, server) == ["semel.lookup", "semel.send"]  # the new vectors come with the answer
    assert children(found, send) == ["apply_async/semel.embed_texts"]
    assert send.seconds > publish.seconds  # it goes on until Redis has the message
    assert children(found, publish) == ["run/semel.embed_texts"]
    assert children(found, run) == ["semel.batch", "semel.store", "semel.tokenise"]
    assert len(found) == 8
    assert batch.attributes == {
        "semel.model": "fake",
        "semel.device": "cpu",
        "semel.texts": 2,
        "semel.tokens": 4,
        "semel.padded_tokens": 4,
    }
    assert sorted(span.attributes["semel.hits"] for span in found if span.name == "semel.lookup") == [0]


def test_a_hit_is_a_trace_of_two_spans(traced: tuple[Processes, Collector]) -> None:
    semel, spans = traced
    for _ in range(2):
        answer = httpx.post(f"{semel.url}/v1/embeddings", json={"model": "fake", "input": "asked for twice"})
    server = spans.wait_for("POST /v1/embeddings", request=answer.headers["x-request-id"])
    assert sorted(span.name for span in spans.of(server.trace)) == ["POST /v1/embeddings", "semel.lookup"]


def test_a_trace_that_the_client_began_is_continued(traced: tuple[Processes, Collector]) -> None:
    semel, spans = traced
    trace, parent = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
    headers = {"traceparent": f"00-{trace}-{parent}-01", "x-request-id": "goes-on"}
    httpx.post(f"{semel.url}/v1/embeddings", json={"model": "fake", "input": "from elsewhere"}, headers=headers)
    server = spans.wait_for("POST /v1/embeddings", request="goes-on")
    assert (server.trace, server.parent) == (trace, parent)
    wait_until(lambda: "semel.store" in [span.name for span in spans.of(trace)])


def test_each_of_two_jobs_is_one_trace_whichever_process_sends_its_chunks(traced: tuple[Processes, Collector]) -> None:
    semel, spans = traced
    made = []
    for name in ("a", "b"):  # 20 chunks each: more than the queue's window, so the worker sends some of each
        texts = [f"job {name} text {i}" for i in range(100)]
        made.append(httpx.post(f"{semel.url}/v1/jobs", json={"model": "fake", "input": texts}).json()["id"])
    for job in made:
        semel.client.wait(job)
    for job in made:
        server = spans.wait_for("POST /v1/jobs", job=job)
        wait_until(lambda trace=server.trace: len(_runs(spans, trace)) == 20)  # type: ignore[misc]
        found = spans.of(server.trace)
        runs = {run.id: run for run in _runs(spans, server.trace)}
        assert sorted(run.attributes["semel.chunk"] for run in runs.values()) == list(range(20))
        assert {run.attributes["semel.job"] for run in runs.values()} == {job}
        sent = {span.id: span for span in found if span.name == "apply_async/semel.embed_chunks"}
        sends = {span.id: span for span in found if span.name == "semel.send"}
        assert {span.parent for span in sent.values()} == sends.keys()
        assert {span.parent for span in sends.values()} == {server.id}
        assert {run.parent for run in runs.values()} == sent.keys()
        assert "semel-worker" in {span.service for span in sent.values()}  # as well as or instead of the API
        stored = [span for span in found if span.name == "semel.store"]
        assert {span.parent for span in stored} == runs.keys()
        assert sum(span.attributes["semel.texts"] for span in stored) == 100
        batches = [span for span in spans.spans if span.name == "semel.batch"]
        served = {(batch.trace, batch.parent) for batch in batches} | {link for b in batches for link in b.links}
        assert {(server.trace, run) for run in runs} <= served


def test_an_openai_batch_is_one_trace(traced: tuple[Processes, Collector], tmp_path: Path) -> None:
    semel, spans = traced
    lines = [
        {
            "custom_id": f"{i}",
            "method": "POST",
            "url": "/v1/embeddings",
            "body": {"model": "fake", "input": f"line {i}"},
        }
        for i in range(20)
    ]
    (tmp_path / "batch.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    batch = semel.client.submit_batch(semel.client.upload(tmp_path / "batch.jsonl"))
    semel.client.wait_batch(batch.id)
    submit = spans.wait_for("semel.submit", batch=batch.id)
    wait_until(lambda: len(_runs(spans, submit.trace)) == 4)


def _runs(spans: Collector, trace: str) -> list[Exported]:
    return [span for span in spans.of(trace) if span.name == "run/semel.embed_chunks"]


def test_lines_of_the_log_carry_the_trace(traced: tuple[Processes, Collector]) -> None:
    semel, spans = traced
    job = httpx.post(f"{semel.url}/v1/jobs", json={"model": "fake", "input": ["logged", "poison"]}).json()["id"]
    semel.client.wait(job)
    server = spans.wait_for("POST /v1/jobs", job=job)
    wait_until(lambda: bool(_runs(spans, server.trace)))
    (run,) = _runs(spans, server.trace)
    (done,) = [line for line in lines(semel, "worker") if line["event"] == "chunks done" and line.get("job") == job]
    assert (done["trace_id"], done["span_id"]) == (server.trace, run.id)
    on_device = [line for line in lines(semel, "worker") if line["event"] == "a text makes the model fail"]
    assert server.trace in {line["trace_id"] for line in on_device}
    assert all("trace_id" not in line for line in lines(semel, "worker") if line["event"] == "worker ready")


def test_no_text_leaves_with_a_span(traced: tuple[Processes, Collector]) -> None:
    semel, spans = traced
    with pytest.raises(BadInputError):
        semel.client.embed(["unspeakable poison"], model="fake")
    semel.client.rerank("unspeakable question", ["unspeakable answer"], model="reranker")
    texts = [f"unspeakable {i}" for i in range(10)]
    asked = {"model": "fake", "metadata": '{"who": "unspeakable"}'}
    httpx.post(f"{semel.url}/v1/jobs", params=asked, json={"input": ["in the URL"]}).raise_for_status()
    job = semel.client.submit([*texts, "poison"], model="fake")
    semel.client.wait(job.id)
    server = spans.wait_for("POST /v1/jobs", job=job.id)
    wait_until(lambda: len(_runs(spans, server.trace)) == 3)
    assert spans.named("POST /v1/rerank")
    assert b"run/semel.embed_chunks" in spans.raw  # so a word would be found there
    for word in (b"unspeakable", b"poison"):
        assert word not in spans.raw


def test_health_and_metrics_are_not_traced(traced: tuple[Processes, Collector]) -> None:
    semel, spans = traced
    for path in ("/health/live", "/health/ready", "/metrics", "/v1/models"):
        httpx.get(f"{semel.url}{path}")
    wait_until(lambda: bool(spans.named("GET /v1/models")))
    assert not [span for span in spans.spans if re.search("health|metrics", span.name)]


def test_spans_that_were_not_sent_yet_are_sent_when_a_process_ends(tmp_path: Path) -> None:
    with collector() as spans:
        settings = {"SEMEL_OTLP_ENDPOINT": spans.url, "OTEL_BSP_SCHEDULE_DELAY": "600000"}
        with processes(tmp_path, **settings) as semel:
            semel.client.embed(["kept back"], model="fake")
            assert not spans.spans
            semel.stop("worker")
            semel.stop("api")
        assert {"POST /v1/embeddings", "run/semel.embed_texts", "semel.store"} <= {span.name for span in spans.spans}
