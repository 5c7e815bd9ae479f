"""Jobs over HTTP beyond submit and fetch: idempotency, filters, deletion, events, ranges."""

import io
import json
import threading
from contextlib import suppress

import httpx
import numpy as np
import pytest

from semel.client import Client
from semel.errors import ConflictError, NotFoundError
from semel.values.job import JobStatus
from tests.support.processes import Processes

TEXTS = [f"a text of the routes {i}" for i in range(5)]


def test_a_repeated_submission_gives_the_same_job(semel: Processes) -> None:
    first = semel.client.submit(TEXTS, model="fake", idempotency_key="night-1")
    assert semel.client.submit(TEXTS, model="fake", idempotency_key="night-1").id == first.id
    assert semel.client.submit(TEXTS, model="fake").id != first.id
    for other in ({"texts": TEXTS[:4], "model": "fake"}, {"texts": TEXTS, "model": "prompted"}):
        with pytest.raises(ConflictError, match="used for another body"):
            semel.client.submit(**other, idempotency_key="night-1")  # type: ignore[arg-type]


def test_a_repeated_json_submission_gives_the_same_job(semel: Processes) -> None:
    def post(texts: list[str]) -> httpx.Response:
        body = {"model": "fake", "input": texts}
        return httpx.post(f"{semel.url}/v1/jobs", json=body, headers={"idempotency-key": "night-2"})

    first = post(TEXTS)
    assert first.status_code == 202
    assert post(TEXTS).json()["id"] == first.json()["id"]
    assert post(TEXTS[:2]).status_code == 409
    semel.client.wait(first.json()["id"])
    semel.client.delete(first.json()["id"])
    assert post(TEXTS[:2]).status_code == 202, "the job is gone, and its key with it"


def test_a_refused_submission_frees_its_key(semel: Processes) -> None:
    headers = {"idempotency-key": "night-3"}
    assert httpx.post(f"{semel.url}/v1/jobs", content=b"{oops", headers=headers).status_code == 400
    answer = httpx.post(f"{semel.url}/v1/jobs", json={"model": "fake", "input": TEXTS}, headers=headers)
    assert answer.status_code == 202
    too_long = httpx.post(f"{semel.url}/v1/jobs", json={"input": TEXTS}, headers={"idempotency-key": "k" * 256})
    assert (too_long.status_code, "255" in too_long.json()["error"]["message"]) == (400, True)


def test_simultaneous_submissions_with_one_key_create_one_job(semel: Processes) -> None:
    ids: list[str] = []

    def submit() -> None:
        with Client(semel.url) as client, suppress(ConflictError):  # the other submission is under way
            ids.append(client.submit(TEXTS, model="fake", idempotency_key="night-4").id)

    threads = [threading.Thread(target=submit) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(ids)) == 1


def test_the_list_is_filtered_and_paged(semel: Processes) -> None:
    made = [semel.client.submit([f"listed {i}"], model="prompted").id for i in range(3)]
    for job_id in made:
        semel.client.wait(job_id)
    found = semel.client.jobs(model="prompted", status=JobStatus.COMPLETED)
    assert [job.id for job in found[:3]] == made[::-1]
    page = semel.client.jobs(model="prompted", status=JobStatus.COMPLETED, limit=2, after=made[2])
    assert [job.id for job in page] == made[1::-1]
    assert made[0] not in [job.id for job in semel.client.jobs(status=JobStatus.FAILED)]
    assert httpx.get(f"{semel.url}/v1/jobs?status=sleeping").status_code == 400


def test_a_job_that_ended_can_be_deleted(semel: Processes) -> None:
    job = semel.client.wait(semel.client.submit(["deleted later"], model="fake").id)
    semel.client.delete(job.id)
    with pytest.raises(NotFoundError):
        semel.client.job(job.id)
    with pytest.raises(NotFoundError):
        semel.client.delete(job.id)
    answer = httpx.post(f"{semel.url}/v1/embeddings", json={"model": "fake", "input": "deleted later"})
    assert answer.headers["x-semel-cache"].startswith("hits=1"), "its vectors stay"


def test_events_report_the_progress_and_then_end(semel: Processes) -> None:
    job = semel.client.submit([f"told {i}" for i in range(3000)], model="fake")
    events = list(semel.client.events(job.id))
    assert events[-1].job.status is JobStatus.COMPLETED
    assert events[-1].job.counts.done == 3000
    assert [e.job.counts.done for e in events] == sorted(e.job.counts.done for e in events)
    raw = httpx.get(f"{semel.url}/v1/jobs/{job.id}/events")
    assert raw.headers["content-type"].startswith("text/event-stream")
    assert raw.text.startswith("event: end\ndata: ")
    assert raw.text.endswith("\n\n")
    with pytest.raises(NotFoundError):
        next(semel.client.events("job_no"))


@pytest.mark.parametrize(
    ("offset", "limit"), [(0, None), (0, 1), (1023, 3), (1024, 1), (1500, None), (2999, 9), (3000, None)]
)
def test_results_of_a_range_equal_that_part_of_all_results(semel: Processes, offset: int, limit: int | None) -> None:
    job = semel.client.wait(semel.client.submit([f"told {i}" for i in range(3000)], model="fake").id)
    everything = semel.client.results(job.id)
    stop = 3000 if limit is None else offset + limit
    with semel.client.results_stream(job.id, fmt="npy", offset=offset, limit=limit) as parts:
        part = np.load(io.BytesIO(b"".join(parts)))
    np.testing.assert_array_equal(part, everything[offset:stop])
    with semel.client.results_stream(job.id, fmt="ndjson", offset=offset, limit=limit) as parts:
        lines = [json.loads(line) for line in b"".join(parts).splitlines()]
    assert [line["index"] for line in lines] == list(range(3000))[offset:stop]
    np.testing.assert_allclose([line["embedding"] for line in lines], part.tolist())


def test_a_range_keeps_errors_with_their_texts(semel: Processes) -> None:
    job = semel.client.wait(semel.client.submit(["a", "poison", "b", "poison", "c"], model="fake").id)
    with semel.client.results_stream(job.id, fmt="ndjson", offset=2, limit=2) as parts:
        lines = [json.loads(line) for line in b"".join(parts).splitlines()]
    assert [(line["index"], "error" in line) for line in lines] == [(2, False), (3, True)]


def test_a_corpus_is_embedded_in_one_call(semel: Processes, capsys: pytest.CaptureFixture[str]) -> None:
    texts = [f"of the corpus {i}" for i in range(1500)]
    vectors = semel.client.embed_corpus(iter(texts), model="fake")
    np.testing.assert_array_equal(vectors[[0, 1499]], semel.client.embed([texts[0], texts[1499]], model="fake"))
    assert "1500/1500" in capsys.readouterr().err
    assert semel.client.embed_corpus(texts[:2], model="fake", show_progress=False).shape == (2, 16)
    assert capsys.readouterr().err == ""
    with pytest.raises(ConflictError, match="1 of 2 texts failed"):
        semel.client.embed_corpus(["fine", "poison"], model="fake", show_progress=False)
