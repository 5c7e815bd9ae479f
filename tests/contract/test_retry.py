"""What a retry promises, on SQLite and on PostgreSQL."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from semel.cache.keys import input_keys
from semel.cache.store import VectorStore
from semel.db import Database
from semel.errors import ConflictError, NotFoundError, TextTooLongError
from semel.tasks.jobs.retry import retry
from semel.tasks.jobs.rows import NO_KEY, ChunkWork, NewChunk
from semel.values.job import Job, JobStatus
from semel.values.text import ItemError, Lane, Outcome
from tests.support.jobs import Jobs
from tests.support.values import space

SPACE = space()
GOOD, BAD = Outcome.COMPUTED, Outcome.FAILED
PASSING = ItemError("backend_error", "the device failed")


@pytest.fixture
def jobs(db: Database) -> Jobs:
    return Jobs(db, window_s=60, retention_s=60)


def made(jobs: Jobs, store: VectorStore, *, chunks: int = 1) -> Job:
    """A sealed job; each chunk has a good text, a text that fails, and a text without a key."""
    job = jobs.add(SPACE, lane=Lane.BULK, device="cpu", why="test", truncate=False)
    new = []
    for i in range(chunks):
        keys = [*input_keys(SPACE.fingerprint, [f"good {i}", f"bad {i}"]), NO_KEY]
        new.append(NewChunk(3 * i, keys, [f"good {i}", f"bad {i}", ""], {2: ItemError("invalid_text", "is empty")}))
    jobs.add_chunks(job, new, lookup=store.lookup_on)
    return jobs.seal(job.id)


def leased(jobs: Jobs, job: Job, position: int) -> ChunkWork:
    work = jobs.lease_one(job.id, position, owner="w", ttl_s=60)
    assert work is not None
    return work


def finish(jobs: Jobs, work: ChunkWork, second: Outcome, error: ItemError = PASSING) -> None:
    errors = work.errors if second is GOOD else {**work.errors, 1: error}
    assert jobs.finish_one(work, [GOOD, second, BAD], errors, truncated=0, tokens=3)


def test_only_texts_that_failed_for_a_passing_reason_run_again(jobs: Jobs, store: VectorStore, db: Database) -> None:
    job = made(jobs, store)
    finish(jobs, leased(jobs, job, 0), BAD)
    assert jobs.get(job.id).status is JobStatus.COMPLETED
    retry(db, job.id, window_s=60)
    again = jobs.get(job.id)
    assert (again.status, again.counts.failed, again.counts.done, again.chunks_done) == (JobStatus.IN_PROGRESS, 1, 2, 0)
    assert again.completed_at is None
    work = leased(jobs, job, 0)
    assert work.kept == {0, 2}
    finish(jobs, work, GOOD)
    done = jobs.get(job.id)
    assert (done.status, done.counts.computed, done.counts.failed) == (JobStatus.COMPLETED, 2, 1)


def test_a_text_that_would_fail_again_is_not_retried(jobs: Jobs, store: VectorStore, db: Database) -> None:
    job = made(jobs, store)
    finish(jobs, leased(jobs, job, 0), BAD, ItemError.of(TextTooLongError()))
    before = jobs.get(job.id)
    retry(db, job.id, window_s=60)
    assert jobs.get(job.id) == before


def test_concurrent_retries_reopen_each_chunk_once(jobs: Jobs, store: VectorStore, db: Database) -> None:
    job = made(jobs, store, chunks=40)
    for position in range(40):
        finish(jobs, leased(jobs, job, position), BAD)

    def one(_: int) -> bool:
        try:
            retry(db, job.id, window_s=60)
        except ConflictError:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(one, range(4))) == 1
    for position in range(40):
        finish(jobs, leased(jobs, job, position), GOOD)
    done = jobs.get(job.id)
    assert (done.status, done.counts.computed, done.counts.failed, done.chunks_done) == (
        JobStatus.COMPLETED,
        80,
        40,
        40,
    )


def test_chunks_that_a_sweep_took_from_a_dead_worker_run_again(jobs: Jobs, store: VectorStore, db: Database) -> None:
    job = made(jobs, store)
    assert jobs.lease_one(job.id, 0, owner="dead", ttl_s=-1) is not None
    jobs.fail(job.id, ItemError("storage_full", "no room"))
    jobs.sweep(empty_queues=[], resend_after_s=5, max_attempts=5)
    retry(db, job.id, window_s=60)
    assert jobs.get(job.id).status is JobStatus.IN_PROGRESS
    finish(jobs, leased(jobs, job, 0), GOOD)
    assert jobs.get(job.id).status is JobStatus.COMPLETED


def test_a_job_that_cannot_be_retried_is_refused_with_the_reason(jobs: Jobs, store: VectorStore, db: Database) -> None:
    with pytest.raises(NotFoundError):
        retry(db, "job_nope", window_s=60)
    job = made(jobs, store)
    with pytest.raises(ConflictError, match="is in_progress"):
        retry(db, job.id, window_s=60)
    upload = jobs.add(SPACE, lane=Lane.BULK, device="cpu", why="test", truncate=True)
    jobs.fail(upload.id, ItemError("upload_cut_off", "cut off"))
    with pytest.raises(ConflictError, match="never complete"):
        retry(db, upload.id, window_s=60)


def test_a_chunk_whose_worker_died_with_the_job_is_run_again(jobs: Jobs, store: VectorStore, db: Database) -> None:
    job = made(jobs, store)
    jobs.lease_one(job.id, 0, owner="dead", ttl_s=-1)
    jobs.fail(job.id, ItemError("service_unavailable", "no worker"))
    retry(db, job.id, window_s=60)
    assert jobs.get(job.id).status is JobStatus.IN_PROGRESS
    finish(jobs, leased(jobs, job, 0), GOOD)
    assert jobs.get(job.id).status is JobStatus.COMPLETED
