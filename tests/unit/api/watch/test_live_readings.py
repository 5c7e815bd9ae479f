"""Readings for the page: which jobs are listed, and with which rate and progress."""

import json
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import update

from semel.api.jobs.submission import create, job_ingest
from semel.api.jobs.wire import JobRequest
from semel.api.watch import live as module
from semel.api.watch.live import Live
from semel.api.watch.overview import overview
from semel.api.watch.throughput import Throughput
from semel.errors import UnavailableError
from semel.tasks.fleet.card import WorkerCard
from semel.tasks.jobs.schema import chunks as chunk_rows
from semel.tasks.jobs.schema import jobs as job_rows
from semel.values.job import Job
from tests.support.parts import Parts


@pytest.fixture
def live(running: Parts) -> Iterator[Live]:
    """A reader; jobs of other tests are out of its way."""
    stores, watch = running.services.stores, running.services.watch
    with stores.db.write() as conn:
        conn.execute(chunk_rows.delete())
        conn.execute(job_rows.delete())
    yield Live(stores.jobs, watch.running, Throughput(), overview=lambda: overview(running.services))
    running.worker.paused = False


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def waiting_job(running: Parts, *texts: str) -> Job:
    running.worker.paused = True
    ingest = job_ingest(running.services, create(running.services, JobRequest(input=[])))
    for text in texts:
        ingest.add(text)
    return ingest.finish()


def entries(live: Live) -> dict[str, dict[str, Any]]:
    frame = live._read(1)
    data = frame.jobs.split(b"\n")[1].removeprefix(b"data: ")
    return {entry["job"]["id"]: entry for entry in json.loads(data)}


def count(running: Parts, job: Job, **counts: int) -> None:
    with running.services.stores.db.write() as conn:
        conn.execute(update(job_rows).where(job_rows.c.id == job.id).values(**counts))


def test_a_frame_has_the_overview_and_the_jobs(running: Parts, live: Live) -> None:
    job = waiting_job(running, "in a frame")
    frame = live._read(5)
    assert frame.number == 5
    assert frame.overview.startswith(b'event: overview\ndata: {"pools"')
    assert job.id.encode() in frame.jobs


def test_a_job_has_the_rate_of_the_last_frames_and_the_seconds_left(
    running: Parts, live: Live, clock: list[float]
) -> None:
    job = waiting_job(running, *(f"rated {i}" for i in range(100)))
    assert (entries(live)[job.id]["texts_per_s"], entries(live)[job.id]["eta_s"]) == (0.0, None)
    clock[0] += 2
    count(running, job, computed=40)
    entry = entries(live)[job.id]
    assert (entry["done"], entry["texts_per_s"], entry["eta_s"]) == (40, 20.0, 3.0)


def test_a_rate_over_a_time_without_watchers_is_not_made_up(running: Parts, live: Live, clock: list[float]) -> None:
    job = waiting_job(running, *(f"unwatched {i}" for i in range(100)))
    entries(live)
    clock[0] += 3600
    count(running, job, computed=40)
    assert (entries(live)[job.id]["texts_per_s"], entries(live)[job.id]["eta_s"]) == (0.0, None)


def work_on(running: Parts, job: Job, done: int, *, state: str = "running") -> None:
    """A worker reports texts that are done in the first chunk of a job."""
    with running.services.stores.db.write() as conn:
        conn.execute(update(chunk_rows).where(chunk_rows.c.job_id == job.id).values(state=state))
    card = WorkerCard(id="busy", device="cpu", host="h", pid=1, started_at=0.0, progress=[(job.id, 0, done)])
    running.publish(card)


def test_texts_of_a_running_chunk_count_before_it_is_done(running: Parts, live: Live) -> None:
    job = waiting_job(running, *(f"in hand {i}" for i in range(10)))
    work_on(running, job, 4)
    assert entries(live)[job.id]["done"] == 4
    assert entries(live)[job.id]["job"]["counts"]["done"] == 0
    assert entries(live)[job.id]["job"]["in_hand"] == 4
    running.services.fleet.roster.leave("busy")


def test_a_chunk_that_is_done_is_not_counted_twice(running: Parts, live: Live) -> None:
    job = waiting_job(running, *(f"not twice {i}" for i in range(10)))
    count(running, job, computed=4)
    work_on(running, job, 4, state="done")
    assert entries(live)[job.id]["done"] == 4
    running.services.fleet.roster.leave("busy")


def test_progress_never_goes_back_and_is_never_complete_before_the_end(running: Parts, live: Live) -> None:
    job = waiting_job(running, *(f"forward {i}" for i in range(10)))
    work_on(running, job, 10)
    assert entries(live)[job.id]["done"] == 9
    work_on(running, job, 2)
    assert entries(live)[job.id]["done"] == 9
    running.services.fleet.roster.leave("busy")


def test_the_newest_jobs_and_the_oldest_open_ones_are_listed(
    running: Parts, live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_NEWEST", 2)
    monkeypatch.setattr(module, "_OPEN", 1)
    jobs = [waiting_job(running, f"one of five {i}") for i in range(5)]
    assert set(entries(live)) == {jobs[0].id, jobs[3].id, jobs[4].id}


def test_the_end_of_a_job_is_listed_for_some_frames(
    running: Parts, live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_NEWEST", 1)
    job = waiting_job(running, "ends between two frames")
    newer = waiting_job(running, "is newer")
    assert set(entries(live)) == {job.id, newer.id}
    running.services.stores.jobs.cancel(job.id)
    seen = [entries(live) for _ in range(7)]
    assert [job.id in frame for frame in seen] == [True] * 5 + [False] * 2
    assert seen[0][job.id]["job"]["status"] == "cancelled"
    assert job.id not in live._done


def test_a_deleted_job_is_forgotten(running: Parts, live: Live) -> None:
    job = waiting_job(running, "deleted between two frames")
    entries(live)
    running.services.stores.jobs.cancel(job.id)
    running.services.stores.jobs.delete(job.id)
    assert entries(live) == {}
    assert live._done == {}


def test_an_ended_job_has_no_rate(running: Parts, live: Live) -> None:
    job = waiting_job(running, "ended without a rate")
    running.services.stores.jobs.cancel(job.id)
    entry = entries(live)[job.id]
    assert (entry["done"], entry["texts_per_s"], entry["eta_s"]) == (0, 0.0, None)


def test_a_part_that_does_not_answer_is_trouble_and_not_the_end(running: Parts, live: Live) -> None:
    with running.redis_gone():
        frame = live._read(1)
    name, data, *_ = frame.overview.split(b"\n")
    assert (name, frame.jobs) == (b"event: trouble", b"")
    trouble = json.loads(data.removeprefix(b"data: "))
    assert trouble["code"] == UnavailableError.code
    assert "Redis does not answer" in trouble["message"]
    assert live._read(2).overview.startswith(b"event: overview")


def test_an_unforeseen_error_is_trouble_too(running: Parts, live: Live) -> None:
    def broken() -> dict[str, Any]:
        raise ZeroDivisionError("by zero")

    live._overview = broken
    assert b'{"code":"internal_error","message":"ZeroDivisionError: by zero"}' in live._read(1).overview


def test_a_card_without_progress_adds_nothing(running: Parts, live: Live) -> None:
    job = waiting_job(running, "waits for its worker")
    running.publish(replace(running.worker._card, progress=[]))
    assert entries(live)[job.id]["done"] == 0
