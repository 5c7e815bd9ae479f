"""Jobs that have ended since the last look."""

import time
from typing import Any

import pytest

from semel.api.jobs.submission import new_job
from semel.api.jobs.wire import JobRequest
from semel.api.watch.ended_jobs import EndedJobs
from semel.tasks.jobs.counts import EndedJob
from tests.support.parts import Parts


class Counts:
    """Stands for `JobCounts`.

    Attributes:
        ended: every job that has ended.
        since: where each look began.
    """

    def __init__(self, *ended: EndedJob) -> None:
        self.ended = list(ended)
        self.since: list[float] = []

    at = 1000.0

    def now(self) -> float:
        return self.at

    def ended_since(self, at: float) -> list[EndedJob]:
        self.since.append(at)
        return [job for job in self.ended if job.ended_at >= at]


def job(job_id: str, ended_at: float) -> EndedJob:
    return EndedJob(job_id, "completed", ended_at - 5, None, ended_at)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(Counts, "at", 1000.0)
    return Counts


def looked(ended: EndedJobs) -> list[str]:
    return [job.id for job in ended.new()]


def test_each_end_is_reported_once(clock: Any) -> None:
    counts = Counts()
    ended = EndedJobs(counts)  # type: ignore[arg-type]
    counts.ended = [job("a", 1001)]
    assert looked(ended) == ["a"]
    counts.ended.append(job("b", 1002))
    assert looked(ended) == ["b"]
    assert looked(ended) == []


def test_jobs_that_ended_before_the_start_are_not_reported(clock: Any) -> None:
    assert looked(EndedJobs(Counts(job("old", 999)))) == []  # type: ignore[arg-type]


def test_a_job_that_is_retried_and_ends_again_is_reported_again(clock: Any) -> None:
    counts = Counts()
    ended = EndedJobs(counts)  # type: ignore[arg-type]
    counts.ended = [job("a", 1001)]
    assert looked(ended) == ["a"]
    counts.ended = [job("a", 1003)]
    assert looked(ended) == ["a"]


def test_an_end_that_becomes_visible_late_is_found_for_a_minute(clock: Any) -> None:
    counts = Counts()
    ended = EndedJobs(counts)  # type: ignore[arg-type]
    clock.at = 1100.0
    assert looked(ended) == []
    counts.ended = [job("committed late", 1045)]
    clock.at = 1101.0
    assert looked(ended) == ["committed late"]
    assert counts.since == [1000.0, 1040.0]


def test_what_is_long_over_is_forgotten(clock: Any) -> None:
    counts = Counts()
    ended = EndedJobs(counts)  # type: ignore[arg-type]
    counts.ended = [job(f"job {i}", 1001 + i) for i in range(100)]
    clock.at = 1200.0
    assert len(looked(ended)) == 100
    assert looked(ended) == []
    assert len(ended._reported) == 0


def test_it_reads_the_jobs_of_a_database(running: Parts) -> None:
    ended = EndedJobs(running.services.stores.counts)
    with new_job(running.services, JobRequest(input=[])) as ingest:
        ingest.add("ends and is reported")
        made = ingest.finish()
    (found,) = ended.new()
    assert (found.id, found.status) == (made.id, "completed")
    assert found.begun_at <= (found.first_result_at or 0) <= found.ended_at <= time.time()
