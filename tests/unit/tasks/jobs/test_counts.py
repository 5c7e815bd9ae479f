"""Counts over all jobs: what waits where, and which jobs have ended."""

import time

import pytest

from semel.cache.store import VectorStore
from semel.db import Database
from semel.tasks.jobs.counts import JobCounts, Waiting, WaitingWork
from semel.tasks.jobs.retry import retry
from semel.tasks.jobs.schema import chunks
from semel.tasks.jobs.schema import jobs as job_table
from semel.values.text import Lane, Outcome
from tests.support.job_rows import BROKEN, change, create, finish, lease, new_chunk, submit
from tests.support.jobs import Jobs

BULK, INTERACTIVE = Lane.BULK, Lane.INTERACTIVE


@pytest.fixture
def counts(db: Database) -> JobCounts:
    return JobCounts(db)


def waiting_texts(counts: JobCounts, *lanes: Lane, device: str = "cpu") -> int:
    return sum(work.texts for work in counts.waiting_work() if work.lane in lanes and work.device == device)


def test_nothing_waits_in_an_empty_database(counts: JobCounts) -> None:
    assert waiting_texts(counts, BULK, INTERACTIVE) == 0
    assert counts.waiting() == {}
    assert counts.count_by_status() == {}
    assert counts.ended_since(0.0) == []


def test_finished_texts_do_not_wait(jobs: Jobs, store: VectorStore, counts: JobCounts) -> None:
    job = submit(jobs, store, "abc", "de")
    assert waiting_texts(counts, BULK) == 5
    finish(jobs, lease(jobs, job), failed={0: BROKEN})
    assert waiting_texts(counts, BULK) == 2


def test_the_texts_of_chosen_lanes_on_one_device_are_counted(jobs: Jobs, store: VectorStore, counts: JobCounts) -> None:
    submit(jobs, store, "abc")
    submit(jobs, store, "de", lane=INTERACTIVE)
    submit(jobs, store, "f", device="cuda")
    assert waiting_texts(counts, BULK) == 3
    assert waiting_texts(counts, BULK, INTERACTIVE) == 5
    assert waiting_texts(counts, BULK, INTERACTIVE, device="mlx") == 0


def test_waiting_texts_have_the_length_of_those_that_are_done(
    jobs: Jobs, store: VectorStore, counts: JobCounts
) -> None:
    job = submit(jobs, store, "abc", "de")
    assert counts.waiting_work() == [WaitingWork(BULK, "cpu", "m", 5, None)]
    work = lease(jobs, job)
    jobs.finish_one(work, [Outcome.COMPUTED, Outcome.HIT, Outcome.FAILED], {2: BROKEN}, truncated=0, tokens=30)
    assert counts.waiting_work() == [WaitingWork(BULK, "cpu", "m", 2, 15.0)]


def test_texts_of_an_upload_wait_and_those_of_a_failed_job_do_not(
    jobs: Jobs, store: VectorStore, counts: JobCounts
) -> None:
    upload = create(jobs)
    jobs.add_chunks(upload, [new_chunk(0, "a", "b")], lookup=store.lookup_on)
    failed = submit(jobs, store, "c")
    jobs.fail(failed.id, BROKEN)
    assert waiting_texts(counts, BULK) == 2


def test_each_queue_reports_its_texts_and_its_oldest_message(
    jobs: Jobs, store: VectorStore, counts: JobCounts, db: Database
) -> None:
    job = submit(jobs, store, "ab", "c", "d")
    submit(jobs, store, "e", lane=INTERACTIVE, device="cuda")
    jobs.dispatch(lane=BULK, device="cpu", window=2)
    with db.write() as conn:
        for position, sent_at in ((0, 1000.0), (1, 2000.0)):
            conn.execute(
                chunks.update().where(chunks.c.position == position, chunks.c.state == "sent").values(sent_at=sent_at)
            )
    work, other = WaitingWork(BULK, "cpu", "m", 4, None), WaitingWork(INTERACTIVE, "cuda", "m", 1, None)
    assert counts.waiting() == {(BULK, "cpu"): Waiting([work], 1000.0), (INTERACTIVE, "cuda"): Waiting([other], None)}
    lease(jobs, job, 0)
    assert counts.waiting()[BULK, "cpu"] == Waiting([work], 2000.0), "a worker has taken the oldest message"


def test_jobs_are_counted_by_status(jobs: Jobs, store: VectorStore, counts: JobCounts) -> None:
    create(jobs)
    submit(jobs, store, "a")
    for job in (submit(jobs, store, "b"), submit(jobs, store, "c")):
        jobs.fail(job.id, BROKEN)
    assert counts.count_by_status() == {"validating": 1, "in_progress": 1, "failed": 2}


def test_only_jobs_that_ended_since_then_are_listed(jobs: Jobs, store: VectorStore, counts: JobCounts) -> None:
    failed = submit(jobs, store, "a")
    jobs.fail(failed.id, BROKEN)
    submit(jobs, store, "b")
    (ended,) = counts.ended_since(time.time() - 60)
    assert (ended.id, ended.status, ended.first_result_at) == (failed.id, "failed", None)
    assert ended.begun_at == failed.created_at
    assert counts.ended_since(ended.ended_at) == [ended], "the moment itself is included"
    assert counts.ended_since(time.time() + 60) == []


def test_a_retried_job_begins_at_its_retry(jobs: Jobs, store: VectorStore, counts: JobCounts, db: Database) -> None:
    job = submit(jobs, store, "ab")
    finish(jobs, lease(jobs, job), failed={1: BROKEN})
    change(db, job_table, created_at=1000.0, first_result_at=1001.0, completed_at=1002.0)
    retry(db, job.id, window_s=60)
    assert counts.ended_since(0.0) == []
    finish(jobs, lease(jobs, job))
    (ended,) = counts.ended_since(0.0)
    assert ended.status == "completed"
    assert ended.first_result_at == 1001.0, "the first result preceded the retry"
    assert 1002.0 < ended.begun_at <= ended.ended_at
