"""The ends of jobs: which jobs end, what their rows record, and what happens to their chunks."""

import time

import pytest
from sqlalchemy import true

from semel.cache.store import VectorStore
from semel.db import Database
from semel.tasks.jobs.ending import cancel_waiting, cancelling_and_idle, count_chunk, end, end_if_done
from semel.tasks.jobs.schema import chunks
from semel.tasks.jobs.schema import jobs as job_table
from semel.values.job import Job, JobStatus
from semel.values.read_counts import ReadCounts
from semel.values.text import ItemError, Outcome
from tests.support.job_rows import change, finish, lease, states, submit
from tests.support.jobs import Jobs


def end_all(db: Database, status: JobStatus, *, error: ItemError | None = None) -> int:
    with db.write() as conn:
        return end(conn, true(), status, retention_s=600, error=error)


@pytest.mark.parametrize("status", [JobStatus.FAILED, JobStatus.EXPIRED, JobStatus.CANCELLED, JobStatus.COMPLETED])
def test_a_job_that_ends_records_when_and_is_kept_for_a_while(
    jobs: Jobs, store: VectorStore, db: Database, status: JobStatus
) -> None:
    job, before = submit(jobs, store, "a"), time.time()
    assert end_all(db, status) == 1
    ended = jobs.get(job.id)
    ended_at = getattr(ended, f"{status.value}_at")
    assert ended.status is status
    assert before <= ended_at <= time.time()
    assert ended.expires_at == pytest.approx(ended_at + 600)


def test_a_job_ends_once(jobs: Jobs, store: VectorStore, db: Database) -> None:
    job = submit(jobs, store, "a")
    end_all(db, JobStatus.FAILED, error=ItemError("storage_full", "no room"))
    failed = jobs.get(job.id)
    assert end_all(db, JobStatus.COMPLETED) == 0
    assert jobs.get(job.id) == failed


def test_only_the_selected_jobs_end(jobs: Jobs, store: VectorStore, db: Database) -> None:
    first, second = submit(jobs, store, "a"), submit(jobs, store, "b")
    with db.write() as conn:
        end(conn, job_table.c.id == first.id, JobStatus.FAILED, retention_s=600)
    assert [jobs.get(job.id).status for job in (first, second)] == [JobStatus.FAILED, JobStatus.IN_PROGRESS]
    assert states(db, second) == ["pending"]


def test_the_reason_is_stored_with_the_job(jobs: Jobs, store: VectorStore, db: Database) -> None:
    job, error = submit(jobs, store, "a"), ItemError("storage_full", 'no "room"')
    end_all(db, JobStatus.FAILED, error=error)
    assert jobs.get(job.id).error == error


def test_chunks_that_wait_are_cancelled_with_their_job_and_others_are_not(
    jobs: Jobs, store: VectorStore, db: Database
) -> None:
    job = submit(jobs, store, "a", "b", "c", "d")
    jobs.dispatch(lane=job.lane, device="cpu", window=3)
    finish(jobs, lease(jobs, job, 0))
    lease(jobs, job, 1)
    assert states(db, job) == ["done", "running", "sent", "pending"]
    end_all(db, JobStatus.EXPIRED)
    assert states(db, job) == ["done", "running", "cancelled", "cancelled"]


def test_a_job_completes_with_its_last_chunk(jobs: Jobs, store: VectorStore, db: Database) -> None:
    job = submit(jobs, store, "a", "b")
    finish(jobs, lease(jobs, job, 0))
    assert jobs.get(job.id).status is JobStatus.IN_PROGRESS
    finish(jobs, lease(jobs, job, 1))
    done = jobs.get(job.id)
    assert done.status is JobStatus.COMPLETED
    assert done.finalizing_at == done.completed_at


def test_a_job_that_is_still_received_does_not_complete(jobs: Jobs, store: VectorStore, db: Database) -> None:
    job = submit(jobs, store, "a")
    finish(jobs, lease(jobs, job))
    change(db, job_table, status="validating", completed_at=None)
    with db.write() as conn:
        end_if_done(conn, [job.id], retention_s=600)
    assert jobs.get(job.id).status is JobStatus.VALIDATING


def cancelling(jobs: Jobs, store: VectorStore) -> Job:
    """A job that is being cancelled, with one running chunk."""
    job = submit(jobs, store, "a", "b")
    lease(jobs, job, 0)
    return jobs.cancel(job.id)


def test_a_job_is_cancelled_when_its_last_running_chunk_ends(jobs: Jobs, store: VectorStore, db: Database) -> None:
    job = cancelling(jobs, store)
    with db.write() as conn:
        end_if_done(conn, [job.id], retention_s=600)
    assert jobs.get(job.id).status is JobStatus.CANCELLING
    change(db, chunks, state="done")
    with db.write() as conn:
        end_if_done(conn, [job.id], retention_s=600)
    assert jobs.get(job.id).status is JobStatus.CANCELLED


def test_the_running_chunk_of_another_job_does_not_delay_a_cancellation(
    jobs: Jobs, store: VectorStore, db: Database
) -> None:
    job, other = cancelling(jobs, store), submit(jobs, store, "c")
    change(db, chunks, state="done")
    with db.write() as conn:
        conn.execute(chunks.update().where(chunks.c.job_id == other.id).values(state="running"))
    with db.write() as conn:
        assert end(conn, cancelling_and_idle(), JobStatus.CANCELLED, retention_s=600) == 1
    assert jobs.get(job.id).status is JobStatus.CANCELLED
    assert jobs.get(other.id).status is JobStatus.IN_PROGRESS


def test_waiting_chunks_are_cancelled_as_selected(jobs: Jobs, store: VectorStore, db: Database) -> None:
    job = submit(jobs, store, "a", "b")
    with db.write() as conn:
        cancel_waiting(conn, chunks.c.position == 1)
    assert states(db, job) == ["pending", "cancelled"]


def test_a_finished_chunk_is_added_to_the_counts_of_its_job(jobs: Jobs, store: VectorStore, db: Database) -> None:
    job, other = submit(jobs, store, "abcd", "efg"), submit(jobs, store, "h")
    outcomes = [Outcome.HIT, Outcome.COMPUTED, Outcome.COMPUTED, Outcome.FAILED]
    with db.write() as conn:
        count_chunk(conn, job.id, outcomes, ReadCounts(1, 9, 4), retention_s=60)
        count_chunk(conn, job.id, [Outcome.COALESCED] * 3, ReadCounts(0, 1, 2), retention_s=60)
    counts = jobs.get(job.id).counts
    assert (counts.hit, counts.computed, counts.coalesced, counts.failed) == (1, 2, 3, 1)
    assert (counts.truncated, counts.tokens, counts.unread, jobs.get(job.id).chunks_done) == (1, 10, 6, 2)
    assert jobs.get(other.id).counts.done == 0


def test_the_first_result_is_timed_once(jobs: Jobs, store: VectorStore, db: Database) -> None:
    job = submit(jobs, store, "a", "b")
    assert job.first_result_at is None
    with db.write() as conn:
        count_chunk(conn, job.id, [Outcome.HIT], ReadCounts(tokens=1), retention_s=60)
    first = jobs.get(job.id).first_result_at
    with db.write() as conn:
        count_chunk(conn, job.id, [Outcome.HIT], ReadCounts(tokens=1), retention_s=60)
    assert first is not None
    assert jobs.get(job.id).first_result_at == first
