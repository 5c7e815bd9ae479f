"""A job's progress as server-sent events."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import update

from semel.api.jobs import events as module
from semel.api.jobs.events import KEEP_ALIVE, event, event_stream, job_events
from semel.api.jobs.submission import create, job_ingest
from semel.api.jobs.wire import JobRequest
from semel.tasks.fleet.card import WorkerCard
from semel.tasks.jobs.schema import chunks as chunk_rows
from semel.values.job import Job
from tests.support.parts import Parts
from tests.support.service import Service


def parsed(sent: bytes) -> tuple[str, Any]:
    name, data, *rest = sent.decode().split("\n")
    assert rest == ["", ""], "an event ends with an empty line"
    return name.removeprefix("event: "), json.loads(data.removeprefix("data: "))


def waiting_job(running: Parts, texts: list[str]) -> Job:
    """A job that runs when `run_waiting` is called."""
    running.worker.paused = True
    ingest = job_ingest(running.services, create(running.services, JobRequest(input=[], model="fake")))
    for text in texts:
        ingest.add(text)
    return ingest.finish()


def follow(running: Parts, job: Job, *steps: Callable[[], object], stay: bool = True) -> list[bytes]:
    """The events of a job; each pause takes the next of these steps, and the last pause ends the stream."""
    left = list(steps)

    async def pause(_: float) -> bool:
        if not left:
            return False
        left.pop(0)()
        return bool(left) or stay

    jobs = running.services.stores.jobs

    async def collect(pause: Callable[[float], Awaitable[bool]]) -> list[bytes]:
        return [sent async for sent in job_events(jobs, running.services.watch.running, job, pause)]

    return asyncio.run(collect(pause))


def test_a_job_that_has_ended_has_one_event(running: Parts) -> None:
    job = waiting_job(running, ["followed too late"])
    running.run_waiting()
    ended = running.services.stores.jobs.get(job.id)
    (sent,) = follow(running, ended)
    name, data = parsed(sent)
    assert (name, data["job"]["id"], data["job"]["status"], data["eta_s"]) == ("end", job.id, "completed", 0.0)


def test_progress_is_followed_by_the_end(running: Parts) -> None:
    job = waiting_job(running, ["followed to the end"])
    sent = [parsed(one) for one in follow(running, job, lambda: None, running.run_waiting)]
    assert [name for name, _ in sent] == ["progress", "end"]
    assert [data["job"]["counts"]["done"] for _, data in sent] == [0, 1]


def test_nothing_is_sent_while_nothing_changes(running: Parts) -> None:
    job = waiting_job(running, ["waits in silence"])
    assert len(follow(running, job, *[lambda: None] * 9)) == 1
    running.run_waiting()


def test_the_rate_is_that_since_the_stream_began(running: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    job = waiting_job(running, ["text with a rate", "another text with a rate"])

    def two_seconds_later() -> None:
        now[0] += 2
        running.run_waiting()

    first, end = (parsed(sent)[1] for sent in follow(running, job, two_seconds_later))
    assert (first["texts_per_s"], first["eta_s"]) == (0.0, None)
    assert (end["texts_per_s"], end["eta_s"]) == (1.0, 0.0)


def test_a_job_with_a_rate_has_seconds_left(running: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    services = running.services
    ingest = job_ingest(services, create(services, JobRequest(input=[], model="fake")))
    ingest.add("done before the rest arrives")
    ingest.take(ingest._cutter.take_rest())
    running.worker.paused = True
    job = services.stores.jobs.get(ingest.job.id)

    def three_more() -> None:
        now[0] += 1
        running.worker.paused = False
        ingest.add("one more")
        ingest.take(ingest._cutter.take_rest())
        running.worker.paused = True
        for i in range(3):
            ingest.add(f"waits {i}")
        ingest.finish()

    _, last = (parsed(sent)[1] for sent in follow(running, job, three_more, lambda: None, stay=False))
    assert (last["texts_per_s"], last["eta_s"], last["job"]["counts"]["total"]) == (1.0, 3.0, 5)
    running.run_waiting()


def work_on(running: Parts, job: Job, done: int) -> None:
    """A worker reports texts that are done in the first chunk of a job."""
    with running.services.stores.db.write() as conn:
        conn.execute(update(chunk_rows).where(chunk_rows.c.job_id == job.id).values(state="running"))
    card = WorkerCard(id="busy", device="cpu", host="h", pid=1, started_at=0.0, progress=[(job.id, 0, done)])
    running.publish(card)


def test_texts_of_a_running_chunk_are_progress_before_the_chunk_is_done(running: Parts) -> None:
    job = waiting_job(running, [f"in hand {i}" for i in range(10)])
    sent = follow(
        running, job, lambda: work_on(running, job, 4), lambda: work_on(running, job, 7), lambda: None, stay=False
    )
    running.services.watch.roster.leave("busy")
    jobs = [parsed(one)[1]["job"] for one in sent]
    assert [(each["in_hand"], each["counts"]["done"]) for each in jobs] == [(0, 0), (4, 0), (7, 0)]


def test_texts_in_hand_count_for_the_rate_and_the_seconds_left(running: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    job = waiting_job(running, [f"rated in hand {i}" for i in range(10)])
    work_on(running, job, 2)

    def two_seconds_later() -> None:
        now[0] += 2
        work_on(running, job, 6)

    _, last = (parsed(sent)[1] for sent in follow(running, job, two_seconds_later, lambda: None, stay=False))
    running.services.watch.roster.leave("busy")
    assert (last["texts_per_s"], last["eta_s"]) == (2.0, 2.0), "the first two were done when the events began"


def test_the_end_of_a_job_has_nothing_in_hand(running: Parts) -> None:
    job = waiting_job(running, ["nothing left in hand"])
    running.run_waiting()
    work_on(running, job, 1)
    (sent,) = follow(running, running.services.stores.jobs.get(job.id))
    running.services.watch.roster.leave("busy")
    name, data = parsed(sent)
    assert (name, data["job"]["in_hand"], data["job"]["eta_s"]) == ("end", 0, None)


def test_a_comment_keeps_a_quiet_connection_open(running: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_KEEP_ALIVE_S", -1.0)
    job = waiting_job(running, ["quiet for long"])
    progress, *comments = follow(running, job, lambda: None, lambda: None)
    assert parsed(progress)[0] == "progress"
    assert comments == [KEEP_ALIVE] * 2
    assert KEEP_ALIVE.startswith(b":")
    assert KEEP_ALIVE.endswith(b"\n\n")
    running.run_waiting()


def test_the_stream_of_a_deleted_job_ends(running: Parts) -> None:
    job = waiting_job(running, ["deleted while it is followed"])

    def delete() -> None:
        running.services.stores.jobs.cancel(job.id)
        running.services.stores.jobs.delete(job.id)

    assert len(follow(running, job, delete)) == 1
    running.run_waiting()


def test_a_server_that_ends_lets_its_watchers_go(running: Parts) -> None:
    job = waiting_job(running, ["never finished here"])
    assert len(follow(running, job)) == 1
    running.run_waiting()


# Encoding


def test_an_event_is_two_lines_and_an_empty_one() -> None:
    assert event("progress", {"a": "two\nlines"}) == b'event: progress\ndata: {"a":"two\\nlines"}\n\n'


def test_no_proxy_keeps_a_stream_back() -> None:
    answer = event_stream([b""])
    assert answer.media_type == "text/event-stream"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-accel-buffering"] == "no"


def test_the_route_sends_the_events_of_a_job(api: Service) -> None:
    job = api.http.post("/v1/jobs", json={"input": ["followed by the route"]}).json()
    answer = api.http.get(f"/v1/jobs/{job['id']}/events")
    assert answer.headers["content-type"].startswith("text/event-stream")
    name, data = parsed(answer.content)
    assert (name, data["job"]["id"]) == ("end", job["id"])
    assert api.http.get("/v1/jobs/job_nope/events").status_code == 404
