"""The API over HTTP, in OpenAI's shape and its own, on a running stack."""

import base64
import io
import json
import re
from collections.abc import Iterator

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.processes import Processes, wait_until


def post(semel: Processes, path: str, **body: object) -> httpx.Response:
    return httpx.post(f"{semel.url}{path}", json=body, timeout=60)


def test_embeddings_in_openais_shape(semel: Processes) -> None:
    answer = post(semel, "/v1/embeddings", model="fake", input=["one", "two words", "one"])
    assert answer.status_code == 200
    body = answer.json()
    assert [(d["object"], d["index"]) for d in body["data"]] == [("embedding", i) for i in range(3)]
    assert body["data"][0]["embedding"] == body["data"][2]["embedding"] != body["data"][1]["embedding"]
    assert (body["object"], body["model"], body["usage"]) == ("list", "fake", {"prompt_tokens": 4, "total_tokens": 4})


def test_base64_is_the_same_vector(semel: Processes) -> None:
    floats = post(semel, "/v1/embeddings", model="fake", input="x").json()["data"][0]["embedding"]
    packed = post(semel, "/v1/embeddings", model="fake", input="x", encoding_format="base64").json()["data"][0]
    unpacked = np.frombuffer(base64.b64decode(packed["embedding"]), "<f4")
    np.testing.assert_array_equal(unpacked, np.array(floats, np.float32))


def test_a_repeated_request_is_a_hit(semel: Processes) -> None:
    body = {"model": "fake", "input": ["asked twice", "asked twice"]}
    assert post(semel, "/v1/embeddings", **body).headers["x-semel-cache"] == "hits=0; computed=1; coalesced=1"
    assert post(semel, "/v1/embeddings", **body).headers["x-semel-cache"] == "hits=2; computed=0; coalesced=0"


def test_headers_report_the_queue_time_and_the_inference_time(semel: Processes) -> None:
    cold = post(semel, "/v1/embeddings", model="fake", input="how long did this take").headers
    assert 0 < float(cold["x-inference-time"]) < 10_000
    assert 0 < float(cold["x-queue-time"]) < 10_000
    hot = post(semel, "/v1/embeddings", model="fake", input="how long did this take").headers
    assert (hot["x-inference-time"], hot["x-queue-time"]) == ("0.0", "0.0")
    large = [f"{i} " + "word " * 100 for i in range(300)]
    assert "x-inference-time" not in post(semel, "/v1/embeddings", model="fake", input=large).headers


def test_a_large_request_goes_through_the_database_and_comes_back_in_order(semel: Processes) -> None:
    texts = [f"{'large ' * 15}{i}" for i in range(1500)]
    vectors = semel.client.embed(texts, model="fake")
    assert (vectors[[3, 1400]] == semel.client.embed([texts[3], texts[1400]], model="fake")).all()


@pytest.mark.parametrize(
    ("body", "status", "code", "message"),
    [
        ({"input": []}, 400, "empty_input", "empty list"),
        ({"input": ""}, 400, "invalid_text", "text 0 is empty"),
        ({"input": ["a", ""]}, 400, "invalid_text", "text 1 is empty"),
        ({"input": ["a", 3]}, 400, "invalid_text", "text 1 is int, not a string"),
        ({"input": [[1, 2], [3]]}, 400, "invalid_input", "check_embedding_ctx_length=False"),
        ({"input": {"a": 1}}, 400, "invalid_input", "not dict"),
        ({"input": ["x"] * 2049}, 400, "too_many_texts", "POST /v1/jobs"),
        ({"input": "x", "model": "nope"}, 404, "model_not_found", r"no model named 'nope' \(known: fake"),
        ({"input": "x", "dimensions": 7}, 400, "invalid_input", "cannot be cut to 7"),
        ({"input": "x", "encoding_format": "hex"}, 400, "invalid_input", "encoding_format"),
        ({"input": "a poison b"}, 400, "invalid_text", "text 0 has no vector"),
        ({"input": "w " * 50, "truncate": False}, 400, "invalid_text", "longer than the model reads"),
        ({}, 400, "invalid_input", "input"),
    ],
)
def test_bad_input_is_a_4xx_in_openais_shape(
    semel: Processes, body: dict[str, object], status: int, code: str, message: str
) -> None:
    answer = post(semel, "/v1/embeddings", **{"model": "fake", **body})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["type"]) == (status, code, "invalid_request_error")
    assert re.search(message, error["message"])


def test_a_lone_surrogate_is_refused(semel: Processes) -> None:
    answer = httpx.post(f"{semel.url}/v1/embeddings", content=b'{"model": "fake", "input": "a\\ud800b"}')
    assert answer.status_code == 400
    assert answer.json()["error"]["message"]


def test_a_body_that_is_not_json_is_refused(semel: Processes) -> None:
    assert httpx.post(f"{semel.url}/v1/embeddings", content=b"{oops").status_code == 400
    assert httpx.post(f"{semel.url}/v1/jobs", content=b"{oops").status_code == 400


def test_a_megabyte_of_text_is_truncated_and_a_header_reports_it(semel: Processes) -> None:
    answer = post(semel, "/v1/embeddings", model="fake", input="word " * 200_000)
    assert answer.status_code == 200
    assert answer.headers["x-semel-truncated"] == "1"


def test_unknown_paths_and_ids_are_404(semel: Processes) -> None:
    for path in ("/v1/nothing", "/v1/jobs/job_no", "/v1/jobs/job_no/results"):
        answer = httpx.get(semel.url + path)
        assert answer.status_code == 404
        assert answer.json()["error"]["code"] == "not_found"


def submit(semel: Processes, texts: list[object]) -> str:
    answer = post(semel, "/v1/jobs", model="fake", input=texts, metadata={"who": "test"})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def test_a_job_end_to_end_in_every_format(semel: Processes) -> None:
    texts = [f"job text {i % 300}" for i in range(3000)]
    job = semel.client.submit(texts, model="fake")
    job = semel.client.wait(job.id, timeout_s=60)
    assert (job.status, job.total, job.counts.done, job.counts.failed) == ("completed", 3000, 3000, 0)
    assert job.counts.computed == 300
    rows = semel.client.results(job.id)
    assert (rows[:300] == rows[2700:]).all()
    assert (rows[7] == semel.client.embed([texts[7]], model="fake")[0]).all()

    def fetch(fmt: str) -> bytes:
        with semel.client.results_stream(job.id, fmt=fmt) as parts:
            return b"".join(parts)

    lines = [json.loads(line) for line in fetch("ndjson").splitlines()]
    assert [line["index"] for line in lines] == list(range(3000))
    assert np.array_equal(np.array([line["embedding"] for line in lines], np.float32), rows)
    assert np.array_equal(np.load(io.BytesIO(fetch("npy"))), rows)
    for table in (pa.ipc.open_stream(fetch("arrow")).read_all(), pq.read_table(io.BytesIO(fetch("parquet")))):
        assert np.array_equal(np.stack(table["embedding"].to_numpy()), rows)
        assert table["index"].to_pylist() == list(range(3000))


def test_a_lone_surrogate_in_a_line_fails_only_that_text(semel: Processes) -> None:
    lines = b'{"text": "fine"}\n{"text": "a\\ud800"}\n'
    answer = httpx.post(f"{semel.url}/v1/jobs", content=lines, headers={"content-type": "application/x-ndjson"})
    job = semel.client.wait(answer.json()["id"], timeout_s=30)
    assert (job.status, job.total, job.counts.failed) == ("completed", 2, 1)


def test_an_unknown_device_is_refused(semel: Processes) -> None:
    answer = post(semel, "/v1/jobs", model="fake", input=["a"], device="gpu")
    assert answer.status_code == 400
    assert "unknown device 'gpu'" in answer.json()["error"]["message"]


def test_failed_texts_keep_their_rows(semel: Processes) -> None:
    job_id = submit(semel, ["fine", "", "a poison b", 3, "fine too"])
    job = semel.client.wait(job_id, timeout_s=30)
    assert (job.status, job.counts.failed, job.metadata) == ("completed", 3, {"who": "test"})
    lines = httpx.get(f"{semel.url}/v1/jobs/{job_id}/results").text.splitlines()
    results = [json.loads(line) for line in lines]
    assert [r["outcome"] == "failed" for r in results] == [False, True, True, True, False]
    assert [r.get("error", {}).get("code") for r in results[1:4]] == ["invalid_text", "backend_error", "invalid_text"]
    npy = httpx.get(f"{semel.url}/v1/jobs/{job_id}/results?format=npy")
    assert npy.status_code == 409
    assert "npy cannot mark" in npy.json()["error"]["message"]
    arrow = pa.ipc.open_stream(httpx.get(f"{semel.url}/v1/jobs/{job_id}/results?format=arrow").content).read_all()
    assert [e is None for e in arrow["embedding"].to_pylist()] == [False, True, True, True, False]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (b'{"text": "a"}\nnot json\n', "line 2: not JSON"),
        (b'{"text": "a"}\n{"txt": "b"}\n', 'line 2: "text" is missing; each row must be {"text"'),
        (b'{"text": "a"}\n\n{"text": 5}\n', 'line 3: "text" is int, not a string'),
    ],
)
def test_a_bad_line_fails_in_its_place(semel: Processes, lines: bytes, message: str) -> None:
    def post(query: str) -> httpx.Response:
        header = {"content-type": "application/x-ndjson"}
        return httpx.post(f"{semel.url}/v1/jobs{query}", content=lines, headers=header)

    job = semel.client.wait(post("").json()["id"])
    assert (job.total, job.counts.failed) == (2, 1)
    results = httpx.get(f"{semel.url}/v1/jobs/{job.id}/results").text.splitlines()
    assert message in json.loads(results[1])["error"]["message"]
    before = semel.client.jobs(limit=1)[0]
    refused = post("?strict=true")
    assert (refused.status_code, message in refused.json()["error"]["message"]) == (400, True)
    assert semel.client.jobs(limit=1)[0] == before, "what is refused leaves no job"


@pytest.mark.parametrize(
    ("lines", "message"), [(b"", "empty"), (b'{"txt": "a"}\n{"txt": "b"}', 'line 1: "text" is missing')]
)
def test_a_submission_without_a_row_is_refused(semel: Processes, lines: bytes, message: str) -> None:
    before = semel.client.jobs(limit=1)
    answer = httpx.post(f"{semel.url}/v1/jobs", content=lines, headers={"content-type": "application/x-ndjson"})
    assert (answer.status_code, message in answer.json()["error"]["message"]) == (400, True)
    assert semel.client.jobs(limit=1) == before


def test_results_of_a_failed_job_are_a_conflict_with_the_reason(semel: Processes) -> None:
    def breaks_off() -> Iterator[bytes]:
        yield b'{"text": "a"}\n'
        raise ConnectionError

    with pytest.raises(ConnectionError):
        httpx.post(f"{semel.url}/v1/jobs", content=breaks_off(), headers={"content-type": "application/x-ndjson"})
    wait_until(lambda: semel.client.jobs(limit=1)[0].status == "failed")
    failed = semel.client.jobs(limit=1)[0]
    answer = httpx.get(f"{semel.url}/v1/jobs/{failed.id}/results")
    assert answer.status_code == 409
    assert "is failed: the client disconnected" in answer.json()["error"]["message"]


def test_models_and_health(semel: Processes) -> None:
    (model,) = [m for m in semel.client.models() if m.id == "fake"]
    assert (model.dimensions, model.max_tokens, model.live) == (16, 20, True)
    listed = httpx.get(f"{semel.url}/v1/models").json()["data"]
    assert [one["id"] for one in listed if one["default"]] == ["fake"]
    assert httpx.get(f"{semel.url}/health/live").json() == {"status": "ok"}
    assert semel.client.ready() == {"database": "ok", "redis": "ok", "workers": "ok", "sweeps": "ok"}
    (worker,) = httpx.get(f"{semel.url}/health/backends").json()
    assert (worker["device"], "fake" in worker["models"]) == ("cpu", True)
    assert httpx.get(f"{semel.url}/docs").status_code == 200
    assert "/v1/jobs" in httpx.get(f"{semel.url}/openapi.json").json()["paths"]
