"""The bodies that a job accepts, the ids and metadata of its rows, and the retry of failed texts."""

import json
import socket
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from semel.client import RemoteJob
from tests.support.job_bodies import ROWS, as_csv, as_ndjson, as_parquet
from tests.support.processes import Processes, wait_until

BODIES = {
    "application/json": json.dumps({"input": ROWS}).encode(),
    "application/x-ndjson": as_ndjson(ROWS),
    "text/csv": as_csv(ROWS),
    "application/vnd.apache.parquet": as_parquet(ROWS),
}


def post(semel: Processes, content: bytes, kind: str, **params: str) -> httpx.Response:
    return httpx.post(f"{semel.url}/v1/jobs", content=content, headers={"content-type": kind}, params=params)


def done(semel: Processes, answer: httpx.Response) -> RemoteJob:
    assert answer.status_code == 202, answer.text
    return semel.client.wait(answer.json()["id"])


def results(semel: Processes, job_id: str) -> list[dict[str, Any]]:
    with semel.client.results_stream(job_id, fmt="ndjson") as parts:
        return [json.loads(line) for line in b"".join(parts).splitlines()]


@pytest.mark.parametrize("kind", BODIES)
def test_every_body_gives_the_same_job(semel: Processes, kind: str) -> None:
    job = done(semel, post(semel, BODIES[kind], f"{kind}; charset=utf-8", model="fake"))
    rows = results(semel, job.id)
    assert [row["id"] for row in rows] == ["a", "b", "a"]
    assert [row["metadata"] for row in rows] == [{"page": "3"}, {"page": "4"}, {"page": "3"}]
    vectors = semel.client.embed([row["text"] for row in ROWS], model="fake")
    np.testing.assert_array_equal(np.array([row["embedding"] for row in rows], np.float32), vectors)


@pytest.mark.parametrize(("suffix", "kind"), [(".jsonl", "x-ndjson"), (".csv", "csv"), (".parquet", "parquet")])
def test_a_form_with_a_file(semel: Processes, suffix: str, kind: str) -> None:
    content = next(body for name, body in BODIES.items() if name.endswith(kind))
    answer = httpx.post(
        f"{semel.url}/v1/jobs",
        files={"file": (f"rows{suffix}", content)},
        data={"model": "fake", "metadata": '{"from": "a form"}', "text_field": "text"},
    )
    job = done(semel, answer)
    assert (job.model, job.metadata) == ("fake", {"from": "a form"})
    assert [row["id"] for row in results(semel, job.id)] == ["a", "b", "a"]


def test_text_field_names_the_field_of_the_text(semel: Processes) -> None:
    job = done(semel, post(semel, as_csv([{"body": "a body", "text": "not this"}]), "text/csv", text_field="body"))
    (row,) = results(semel, job.id)
    assert row["metadata"] == {"text": "not this"}
    np.testing.assert_array_equal(
        np.array(row["embedding"], np.float32), semel.client.embed(["a body"], model="fake")[0]
    )


@pytest.mark.parametrize("fmt", ["arrow", "parquet"])
def test_ids_and_metadata_are_in_the_table_formats(semel: Processes, fmt: str, tmp_path: Path) -> None:
    job = done(semel, post(semel, as_ndjson([*ROWS, {"id": 7, "text": "x"}, {"text": ""}]), "application/x-ndjson"))
    with semel.client.results_stream(job.id, fmt=fmt, offset=1) as parts:
        content = pa.BufferReader(b"".join(parts))
    table = pa.ipc.open_stream(content).read_all() if fmt == "arrow" else pq.read_table(content)
    assert table["index"].to_pylist() == [1, 2, 3, 4]
    assert table["id"].to_pylist() == ["b", "a", "7", None]
    assert table["metadata"].to_pylist() == ['{"page":"4"}', '{"page":"3"}', "{}", None]
    assert table["error"].to_pylist()[:3] == [None] * 3


def test_a_lone_surrogate_in_an_id_breaks_no_format(semel: Processes) -> None:
    job = done(semel, post(semel, b'{"id": "\\ud800", "text": "x", "k": "\\ud800"}', "application/x-ndjson"))
    with semel.client.results_stream(job.id, fmt="parquet") as parts:
        table = pq.read_table(pa.BufferReader(b"".join(parts)))
    assert table["id"].to_pylist() == ["?"]
    assert results(semel, job.id)[0]["id"] == "\ud800"


@pytest.mark.parametrize("where", ["json", "url", "form", "client"])
def test_a_job_uses_the_prompt_of_its_input_type(semel: Processes, where: str) -> None:
    texts, asked = [f"by its kind, in {where}", "another"], {"model": "prompted", "input_type": "document"}
    url = f"{semel.url}/v1/jobs"
    if where == "client":
        job_id = semel.client.submit(texts, **asked).id  # type: ignore[arg-type]
    elif where == "form":
        file = ("texts.txt", "\n".join(texts).encode())
        job_id = httpx.post(url, data=asked, files={"file": file}).json()["id"]
    elif where == "url":
        job_id = httpx.post(url, params=asked, json={"input": texts}).json()["id"]
    else:
        job_id = httpx.post(url, json={**asked, "input": texts}).json()["id"]
    semel.client.wait(job_id)
    want = semel.client.embed(texts, model="prompted", input_type="document")
    assert np.array_equal(semel.client.results(job_id), want)
    assert not np.array_equal(semel.client.embed(texts, model="prompted"), want)


@pytest.mark.parametrize("where", ["json", "url", "form"])
def test_a_parameter_that_jobs_do_not_have_is_refused(semel: Processes, where: str) -> None:
    asked = {
        "json": {"json": {"input": ["x"], "dimensions": 4}},
        "url": {"params": {"dimensions": 4}, "json": {"input": ["x"]}},
        "form": {"data": {"dimensions": "4"}, "files": {"file": ("x.txt", b"x")}},
    }[where]
    for path in ("jobs", "jobs/estimate"):
        answer = httpx.post(f"{semel.url}/v1/{path}", **asked)  # type: ignore[arg-type]
        assert answer.status_code == 400
        assert "dimensions" in answer.json()["error"]["message"]


def test_a_form_with_an_unknown_file_extension_is_refused(semel: Processes) -> None:
    for name in ("rows", "rows.xlsx", "rows." + "x" * 300):
        answer = httpx.post(f"{semel.url}/v1/jobs", files={"file": (name, b"x")})
        assert answer.status_code == 400, name
        assert "the name must end in .jsonl" in answer.json()["error"]["message"]


def test_a_bad_row_of_a_table_fails_only_that_text(semel: Processes) -> None:
    rows = as_csv([{"id": "1", "text": "good"}, {"id": "2", "text": "x"}]).replace(b"2,x", b"2,\xff\xfe")
    job = done(semel, post(semel, rows, "text/csv"))
    good, bad = results(semel, job.id)
    assert good["outcome"] in ("computed", "hit")
    assert (bad["outcome"], bad["id"]) == ("failed", "2")
    assert "row 2: not UTF-8" in bad["error"]["message"]


def test_a_bad_row_of_a_stream_fails_alone_or_refuses_all_without_a_trace(semel: Processes) -> None:
    content = b'{"text": "good"}\noops\n{"id": 7}\n'
    job = done(semel, post(semel, content, "application/x-ndjson"))
    good, no_json, no_text = results(semel, job.id)
    assert good["outcome"] in ("computed", "hit")
    assert no_json["error"]["message"].startswith("line 2: not JSON")
    assert (no_text["id"], no_text["error"]["message"].partition(";")[0]) == (7, 'line 3: "text" is missing')
    before = [job.id for job in semel.client.jobs()]
    refused = post(semel, content, "application/x-ndjson", strict="true")
    assert (refused.status_code, "line 2: not JSON" in refused.json()["error"]["message"]) == (400, True)
    assert [job.id for job in semel.client.jobs()] == before


@pytest.mark.parametrize(
    ("content", "kind", "message"),
    [
        (b"a,b\n1,2\n", "text/csv", "no column 'text' (columns: a, b)"),
        (b"not parquet", "application/x-parquet", "not a Parquet file"),
        (b"<x/>", "application/xml", "unsupported Content-Type 'application/xml' for a job"),
        (b'{"input": [{"id": 1}]}', "application/json", 'input[0]: "text" is missing'),
        (b'{"text": 5}', "application/x-ndjson", 'line 1: "text" is int, not a string'),
        (b"--x--", "multipart/form-data; boundary=x", "the form has no file"),
        (b"text\n", "text/csv", "the list of texts is empty"),
        (b'{"text": ' + b"[" * 100_000, "application/x-ndjson", "line 1: not JSON"),
        (b'{"text":"a"},{"text":"b"}\n{"text":"c","x":1\n"y":2}\n', "application/x-ndjson", "line 1: not JSON"),
    ],
)
def test_a_body_that_cannot_be_read_is_refused_with_the_reason(
    semel: Processes, content: bytes, kind: str, message: str
) -> None:
    answer = post(semel, content, kind)
    assert answer.status_code == 400
    reported = answer.json()["error"]["message"]
    assert message in reported
    assert "part-" not in reported, "no path of the server"


def test_a_job_of_pairs_gives_scores_and_scores_no_pair_twice(semel: Processes) -> None:
    pairs = [{"query": "red fox", "document": text} for text in ("a red fox", "a dog", "a fox here", "a red fox")]
    job = done(semel, post(semel, as_ndjson(pairs), "application/x-ndjson", model="reranker"))
    assert [row["score"] for row in results(semel, job.id)] == [1.0, 0.0, 0.5, 1.0]
    journal = semel.folder / "scored"
    before = journal.read_text()
    again = done(semel, post(semel, as_ndjson(pairs), "application/x-ndjson", model="reranker"))
    direct = semel.client.rerank("red fox", [pair["document"] for pair in pairs], model="reranker")
    assert again.counts.hit == 4
    assert [(r.index, r.score) for r in direct] == [(0, 1.0), (3, 1.0), (2, 0.5), (1, 0.0)]
    assert journal.read_text() == before


@pytest.mark.parametrize(
    ("model", "row", "message"),
    [
        ("reranker", {"text": "a text"}, '\\"query\\" is missing; each row must be {\\"query\\"'),
        ("fake", {"query": "a", "document": "b"}, '\\"text\\" is missing'),
    ],
)
def test_pairs_and_texts_do_not_mix(semel: Processes, model: str, row: dict[str, str], message: str) -> None:
    answer = post(semel, as_ndjson([row]), "application/x-ndjson", model=model)
    assert answer.status_code == 400
    assert message in answer.text


def test_plain_texts_are_refused_for_a_cross_encoder(semel: Processes) -> None:
    answer = httpx.post(f"{semel.url}/v1/jobs", json={"model": "reranker", "input": ["a text"]})
    assert (answer.status_code, "is a cross-encoder" in answer.text) == (400, True)


def test_a_damaged_table_is_a_client_error(semel: Processes) -> None:
    whole = as_parquet([{"id": str(i), "text": f"row {i}"} for i in range(3000)])
    damaged = whole[:100] + bytes(400) + whole[500:]
    answer = post(semel, damaged, "application/vnd.apache.parquet")
    assert answer.status_code == 400, answer.text
    assert "cannot be read after row 0" in answer.json()["error"]["message"]


def test_a_cross_encoder_makes_no_vectors(semel: Processes) -> None:
    answer = httpx.post(f"{semel.url}/v1/embeddings", json={"model": "reranker", "input": "x"})
    assert (answer.status_code, "is a cross-encoder" in answer.text) == (400, True)


# Retry


def test_retry_runs_only_what_failed(semel: Processes) -> None:
    texts = ["will be fine", "", "retry poison", "will be fine", "also poison here"]
    job = done(semel, post(semel, json.dumps({"input": texts}).encode(), "application/json"))
    assert (job.counts.failed, job.counts.done) == (3, 5)
    before = semel.client.job(job.id).counts
    answer = httpx.post(f"{semel.url}/v1/jobs/{job.id}/retry")
    assert answer.status_code == 200
    assert answer.json()["status"] == "in_progress"
    assert answer.json()["completed_at"] is None
    assert answer.json()["counts"]["failed"] == 1, "the empty text stays failed"
    again = semel.client.wait(job.id)
    assert again.counts == before, "the same texts fail again, and nothing is counted twice"
    assert [row["outcome"] for row in results(semel, job.id)][1::3] == ["failed", "failed"]


def test_texts_that_failed_temporarily_are_computed_on_retry(semel: Processes) -> None:
    config = semel.folder / "semel.toml"
    original = config.read_text()
    job = done(semel, post(semel, json.dumps({"input": ["kept", "one poison", "kept"]}).encode(), "application/json"))
    assert job.counts.failed == 1
    try:
        config.write_text(original.replace("fail_on=poison", "fail_on=nothing"))
        semel.stop("worker")
        semel.start_worker()
        semel.wait_ready()
        assert semel.client.retry(job.id).status.value == "in_progress"
        again = semel.client.wait(job.id)
        assert (again.counts.failed, again.counts.done) == (0, 3)
        assert again.counts.tokens == 1 + 2 + 1
        vectors = semel.client.results(job.id)
        np.testing.assert_array_equal(vectors, semel.client.embed(["kept", "one poison", "kept"], model="fake"))
    finally:
        config.write_text(original)
        semel.stop("worker")
        semel.start_worker()
        semel.wait_ready()


def test_a_cancelled_job_goes_on_after_a_retry(tmp_path: Path) -> None:
    from tests.support.processes import processes

    with processes(tmp_path, model="text_ms=2") as slow:
        job = slow.client.submit([f"text {i}" for i in range(4096)], model="fake")
        assert httpx.post(f"{slow.url}/v1/jobs/{job.id}/retry").status_code == 409
        slow.client.cancel(job.id)
        wait_until(lambda: slow.client.job(job.id).status.ended)
        slow.client.retry(job.id)
        assert slow.client.wait(job.id).counts.done == 4096
        assert slow.client.results(job.id).shape == (4096, 16)
        assert httpx.post(f"{slow.url}/v1/jobs/nope/retry").status_code == 404


@pytest.mark.parametrize("route", ["/v1/jobs", "/v1/jobs/estimate"])
def test_an_interrupted_upload_is_not_an_error_of_the_server(semel: Processes, route: str) -> None:
    log = semel.folder / "api.log"
    before = log.read_text().count("unexpected error")
    gone = f'semel_http_request_seconds_count{{method="POST",route="{route}",status="499"}}'
    head = f"POST {route}?model=fake HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/x-ndjson\r\n"
    with socket.create_connection(("127.0.0.1", semel.port)) as upload:
        upload.sendall(f'{head}content-length: 9999\r\n\r\n{{"text": "the first of many"}}\n'.encode())
        time.sleep(0.5)
    wait_until(lambda: gone in httpx.get(f"{semel.url}/metrics").text, detail=semel.logs)
    assert log.read_text().count("unexpected error") == before


def test_metadata_that_no_answer_could_encode_is_refused(semel: Processes) -> None:
    half, before = '{"a": "\\ud800"}', [job.id for job in semel.client.jobs()]
    jobs = f"{semel.url}/v1/jobs"
    by_url = httpx.post(jobs, params={"metadata": half}, json={"input": ["x"]})
    by_form = httpx.post(jobs, data={"metadata": half}, files={"file": ("x.txt", b"x")})
    batch = {
        "input_file_id": "x",
        "endpoint": "/v1/embeddings",
        "completion_window": "24h",
        "metadata": {"a": "\ud800"},
    }
    as_json = {"content": json.dumps(batch), "headers": {"content-type": "application/json"}}
    by_batch = httpx.post(f"{semel.url}/v1/batches", **as_json)  # type: ignore[arg-type]
    for answer in (by_url, by_form, by_batch):
        assert answer.status_code == 400
        assert "lone surrogate" in answer.json()["error"]["message"]
    assert [job.id for job in semel.client.jobs()] == before
