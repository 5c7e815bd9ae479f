"""What a retry changes in the rows of a job, its chunks and its webhook."""

import time

import pytest
from sqlalchemy import select

from semel.cache.store import VectorStore
from semel.db import Database
from semel.errors import ConflictError, InvalidTextError, TextTooLongError
from semel.tasks.jobs.retry import retry
from semel.tasks.jobs.schema import chunks, webhooks
from semel.tasks.jobs.schema import jobs as job_table
from semel.tasks.jobs.webhooks import DELAYS_S, WebhookStore
from semel.values.job import JobStatus
from semel.values.text import ItemError
from tests.support.job_rows import BROKEN, change, create, finish, lease, states, submit
from tests.support.jobs import Jobs

PERMANENT = [InvalidTextError.code, TextTooLongError.code]


def test_a_retried_job_starts_anew_and_keeps_its_first_times(jobs: Jobs, store: VectorStore, db: Database) -> None:
    job = submit(jobs, store, "ab", "c")
    finish(jobs, lease(jobs, job, 0), failed={1: BROKEN})
    finish(jobs, lease(jobs, job, 1))
    before, ended = time.time(), jobs.get(job.id)
    retry(db, job.id, window_s=3600)
    again = jobs.get(job.id)
    assert (again.status, again.completed_at, again.finalizing_at) == (JobStatus.IN_PROGRESS, None, None)
    assert (again.created_at, again.in_progress_at) == (ended.created_at, ended.in_progress_at)
    assert again.first_result_at == ended.first_result_at
    assert before <= (again.retried_at or 0) <= time.time()
    assert again.expires_at == pytest.approx(before + 3600, abs=5)
    assert (again.counts.computed, again.counts.failed, again.chunks_done) == (2, 0, 1)


def test_a_failed_job_loses_its_error(jobs: Jobs, store: VectorStore, db: Database) -> None:
    job = submit(jobs, store, "a")
    jobs.fail(job.id, ItemError("storage_full", "no room"))
    retry(db, job.id, window_s=60)
    again = jobs.get(job.id)
    assert (again.status, again.error, again.failed_at) == (JobStatus.IN_PROGRESS, None, None)


@pytest.mark.parametrize("status", ["expired", "cancelled"])
def test_the_chunks_that_a_job_left_run_again(jobs: Jobs, store: VectorStore, db: Database, status: str) -> None:
    job = submit(jobs, store, "a", "b", "c")
    finish(jobs, lease(jobs, job, 0))
    if status == "cancelled":
        jobs.cancel(job.id)
    else:
        change(db, job_table, expires_at=time.time() - 1)
        jobs.sweep(empty_queues=[], resend_after_s=0, max_attempts=5)
    assert jobs.get(job.id).status.value == status
    retry(db, job.id, window_s=60)
    assert states(db, job) == ["done", "pending", "pending"]
    for position in (1, 2):
        finish(jobs, lease(jobs, job, position))
    done = jobs.get(job.id)
    assert (done.status, done.counts.computed, done.cancelling_at) == (JobStatus.COMPLETED, 3, None)


def test_attempts_are_counted_anew(jobs: Jobs, store: VectorStore, db: Database) -> None:
    job = submit(jobs, store, "a", "b")
    for _ in range(4):
        lease(jobs, job, 0, ttl_s=-1)
    finish(jobs, lease(jobs, job, 0), failed={0: BROKEN})
    jobs.fail(job.id, BROKEN)
    retry(db, job.id, window_s=60)
    with db.read() as conn:
        assert list(conn.execute(select(chunks.c.attempts)).scalars()) == [0, 0]


def test_a_chunk_that_still_runs_is_left_to_its_worker(jobs: Jobs, store: VectorStore, db: Database) -> None:
    job = submit(jobs, store, "a", "b")
    work = lease(jobs, job, 0)
    jobs.fail(job.id, BROKEN)
    retry(db, job.id, window_s=60)
    assert states(db, job) == ["running", "pending"]
    assert finish(jobs, work)
    finish(jobs, lease(jobs, job, 1))
    assert jobs.get(job.id).status is JobStatus.COMPLETED


def test_only_the_texts_with_a_passing_error_run_again(jobs: Jobs, store: VectorStore, db: Database) -> None:
    job = submit(jobs, store, "abcd")
    permanent = {i: ItemError(code, "would fail again") for i, code in enumerate(PERMANENT)}
    finish(jobs, lease(jobs, job), failed={**permanent, 3: BROKEN})
    retry(db, job.id, window_s=60)
    work = lease(jobs, job)
    assert (work.errors, work.kept) == (permanent, {0, 1, 2})
    assert jobs.get(job.id).counts.failed == 2
    finish(jobs, work)
    assert jobs.get(job.id).counts.done == 4


@pytest.mark.parametrize("code", PERMANENT)
def test_a_job_with_nothing_but_permanent_errors_stays_ended(
    jobs: Jobs, store: VectorStore, db: Database, code: str
) -> None:
    job = submit(jobs, store, "ab")
    finish(jobs, lease(jobs, job), failed={1: ItemError(code, "would fail again")})
    WebhookStore(db).add(job.id, "https://example.org")
    change(db, webhooks, due_at=None)
    before = jobs.get(job.id)
    retry(db, job.id, window_s=60)
    assert jobs.get(job.id) == before
    with db.read() as conn:
        assert conn.execute(select(webhooks.c.due_at)).scalar_one() is None, "nothing new to report"


def test_the_webhook_of_a_retried_job_is_called_again(jobs: Jobs, store: VectorStore, db: Database) -> None:
    hooks, job = WebhookStore(db), submit(jobs, store, "a")
    hooks.add(job.id, "https://example.org")
    finish(jobs, lease(jobs, job), failed={0: BROKEN})
    (delivery,) = hooks.take_due(limit=9)
    hooks.failed(delivery, "status 500", for_good=True)
    retry(db, job.id, window_s=60)
    assert hooks.take_due(limit=9) == [], "not before the job has ended again"
    finish(jobs, lease(jobs, job))
    (again,) = hooks.take_due(limit=9)
    assert again.attempts == 0
    assert hooks.failed(again, "status 500") == DELAYS_S[0]


def test_a_retry_that_fails_halfway_changes_nothing(
    jobs: Jobs, store: VectorStore, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = submit(jobs, store, "ab")
    finish(jobs, lease(jobs, job), failed={1: BROKEN})
    before = jobs.get(job.id)
    with monkeypatch.context() as broken:
        broken.setattr("semel.tasks.jobs.retry.JobStatus", None)  # used after the chunks were changed
        with pytest.raises(AttributeError):
            retry(db, job.id, window_s=60)
    assert jobs.get(job.id) == before
    assert states(db, job) == ["done"]


def test_a_job_whose_upload_was_cut_off_is_to_be_submitted_again(jobs: Jobs, db: Database) -> None:
    upload = create(jobs)
    jobs.fail(upload.id, ItemError("upload_cut_off", "cut off"))
    with pytest.raises(ConflictError, match="was never completed; submit the job again"):
        retry(db, upload.id, window_s=60)
    assert jobs.get(upload.id).status is JobStatus.FAILED
