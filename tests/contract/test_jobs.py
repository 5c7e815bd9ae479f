"""What the job store promises, on SQLite and on PostgreSQL."""

import threading
import time

import pytest

from semel.cache.keys import input_keys
from semel.cache.prune import Pruner
from semel.cache.store import VectorStore
from semel.db import Database
from semel.errors import ConflictError, NotFoundError
from semel.tasks.jobs.holding import Holding
from semel.tasks.jobs.rows import NO_KEY, ChunkWork, NewChunk
from semel.values.job import Job, JobStatus
from semel.values.text import ItemError, Lane, Outcome
from tests.support.jobs import Jobs
from tests.support.values import PRODUCER, put, space, vectors

SPACE = space()
DAY_S = 86400.0


@pytest.fixture
def jobs(db: Database) -> Jobs:
    return Jobs(db, window_s=DAY_S, retention_s=DAY_S)


def chunk(first: int, *texts: str) -> NewChunk:
    return NewChunk(first, input_keys(SPACE.fingerprint, texts), list(texts))


def submit(jobs: Jobs, store: VectorStore, *new: NewChunk, truncate: bool = True) -> Job:
    job = jobs.add(SPACE, lane=Lane.BULK, device="cpu", why="test", truncate=truncate)
    jobs.add_chunks(job, new, lookup=store.lookup_on)
    return jobs.seal(job.id)


def lease(jobs: Jobs, job: Job, position: int = 0, owner: str = "w1", ttl_s: float = 60) -> ChunkWork:
    work = jobs.lease_one(job.id, position, owner=owner, ttl_s=ttl_s)
    assert work is not None
    return work


def finish(jobs: Jobs, work: ChunkWork) -> bool:
    return jobs.finish_one(work, [Outcome.COMPUTED] * len(work.keys), {}, truncated=0, tokens=1)


def dispatch(jobs: Jobs, window: int = 8) -> list[tuple[str, int]]:
    return jobs.dispatch(lane=Lane.BULK, device="cpu", window=window)


def sweep(jobs: Jobs, *, resend_after_s: float = 60, max_attempts: int = 5, empty: bool = True) -> object:
    queues = [(Lane.BULK, "cpu")] if empty else []
    return jobs.sweep(empty_queues=queues, resend_after_s=resend_after_s, max_attempts=max_attempts)


def test_a_job_goes_from_validating_to_completed(jobs: Jobs, store: VectorStore) -> None:
    job = jobs.add(SPACE, lane=Lane.BULK, device="cpu", why="test", truncate=True, metadata={"a": "b"})
    assert job.status is JobStatus.VALIDATING
    jobs.add_chunks(job, [chunk(0, "a", "b"), chunk(2, "c")], lookup=store.lookup_on)
    job = jobs.seal(job.id)
    assert (job.status, job.total, job.chunks, job.metadata) == (JobStatus.IN_PROGRESS, 3, 2, {"a": "b"})
    assert finish(jobs, lease(jobs, job, 0))
    assert finish(jobs, lease(jobs, job, 1))
    job = jobs.get(job.id)
    assert job.status is JobStatus.COMPLETED
    assert (job.counts.computed, job.counts.done, job.chunks_done) == (3, 3, 2)
    assert job.created_at <= (job.in_progress_at or 0) <= (job.finalizing_at or 0) <= (job.completed_at or 0)


def test_a_chunk_that_is_all_hits_is_never_queued(jobs: Jobs, store: VectorStore) -> None:
    put(store, ["a", "b"], vectors(2))
    job = submit(jobs, store, chunk(0, "a", "b", "a"))
    assert job.status is JobStatus.COMPLETED
    assert job.counts.hit == 3
    assert dispatch(jobs) == []


def test_texts_and_keys_come_back_in_order(jobs: Jobs, store: VectorStore) -> None:
    job = submit(jobs, store, chunk(0, "b", "a", "b"))
    work = lease(jobs, job)
    assert work.texts() == ["b", "a", "b"]
    assert work.keys == input_keys(SPACE.fingerprint, ["b", "a", "b"])


def test_a_bad_item_keeps_its_place(jobs: Jobs, store: VectorStore) -> None:
    keys = input_keys(SPACE.fingerprint, ["a", "c"])
    bad = NewChunk(0, [keys[0], NO_KEY, keys[1]], ["a", "", "c"], {1: ItemError("invalid_text", "is empty")})
    job = submit(jobs, store, bad)
    work = lease(jobs, job)
    jobs.finish_one(work, [Outcome.COMPUTED, Outcome.FAILED, Outcome.HIT], work.errors, truncated=0, tokens=2)
    (result,) = jobs.results(job.id)
    assert result.keys == [keys[0], NO_KEY, keys[1]]
    assert result.outcomes == [Outcome.COMPUTED, Outcome.FAILED, Outcome.HIT]
    assert result.errors == {1: ItemError("invalid_text", "is empty")}


def test_a_leased_chunk_belongs_to_one_worker(jobs: Jobs, store: VectorStore) -> None:
    job = submit(jobs, store, chunk(0, "a"))
    lease(jobs, job)
    assert jobs.lease_one(job.id, 0, owner="w2", ttl_s=60) is None


def test_a_done_chunk_is_not_done_again(jobs: Jobs, store: VectorStore) -> None:
    job = submit(jobs, store, chunk(0, "a"))
    finish(jobs, lease(jobs, job))
    assert jobs.lease_one(job.id, 0, owner="w2", ttl_s=60) is None


def test_an_expired_lease_goes_to_another_worker_and_the_first_cannot_finish(jobs: Jobs, store: VectorStore) -> None:
    job = submit(jobs, store, chunk(0, "a"))
    late = lease(jobs, job, ttl_s=0.01)
    time.sleep(0.05)
    other = lease(jobs, job, owner="w2")
    assert not finish(jobs, late)
    assert finish(jobs, other)
    assert jobs.get(job.id).counts.computed == 1


def test_renewed_leases_last(jobs: Jobs, store: VectorStore) -> None:
    job = submit(jobs, store, chunk(0, "a"))
    lease(jobs, job, ttl_s=0.05)
    jobs.renew([(job.id, 0)], owner="w1", ttl_s=60)
    time.sleep(0.1)
    assert jobs.lease_one(job.id, 0, owner="w2", ttl_s=60) is None


def test_a_chunk_that_is_no_longer_in_hand_is_not_renewed(jobs: Jobs, store: VectorStore) -> None:
    job = submit(jobs, store, chunk(0, "a"))
    lease(jobs, job, ttl_s=0.05)
    jobs.renew([], owner="w1", ttl_s=60)
    jobs.renew([(job.id, 1)], owner="w1", ttl_s=60)
    time.sleep(0.1)
    assert jobs.lease_one(job.id, 0, owner="w2", ttl_s=60) is not None


def test_a_job_left_in_cancelling_is_ended_by_the_sweep(db: Database, jobs: Jobs, store: VectorStore) -> None:
    job = submit(jobs, store, chunk(0, "a"))
    lease(jobs, job)
    jobs.cancel(job.id)
    with db.write() as conn:  # as left by a `give_back` that did not see the cancellation yet
        conn.exec_driver_sql("UPDATE chunks SET state = 'pending'")
    sweep(jobs)
    assert jobs.get(job.id).status is JobStatus.CANCELLED


def test_two_sweeps_count_a_chunk_once(jobs: Jobs, store: VectorStore) -> None:
    job = submit(jobs, store, chunk(0, "a"), chunk(1, "b"))
    lease(jobs, job, ttl_s=0.01)
    time.sleep(0.05)
    threads = [threading.Thread(target=sweep, args=(jobs,), kwargs={"max_attempts": 1}) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    job = jobs.get(job.id)
    assert (job.chunks_done, job.counts.failed, job.status) == (1, 1, JobStatus.IN_PROGRESS)


def test_the_window_bounds_the_chunks_under_way(jobs: Jobs, store: VectorStore) -> None:
    job = submit(jobs, store, *(chunk(i, f"t{i}") for i in range(10)))
    assert dispatch(jobs, window=4) == [(job.id, i) for i in range(4)]
    assert dispatch(jobs, window=4) == []
    finish(jobs, lease(jobs, job, 0))
    assert dispatch(jobs, window=4) == [(job.id, 4)]


def test_two_jobs_take_turns(jobs: Jobs, store: VectorStore) -> None:
    large = submit(jobs, store, *(chunk(i, f"l{i}") for i in range(10)))
    assert len(dispatch(jobs, window=4)) == 4
    small = submit(jobs, store, *(chunk(i, f"s{i}") for i in range(3)))
    finish(jobs, lease(jobs, large, 0))
    finish(jobs, lease(jobs, large, 1))
    assert dispatch(jobs, window=4) == [(small.id, 0), (small.id, 1)]


def test_a_lost_message_is_sent_again(jobs: Jobs, store: VectorStore) -> None:
    job = submit(jobs, store, chunk(0, "a"))
    dispatch(jobs)
    sweep(jobs, resend_after_s=0, empty=False)
    assert dispatch(jobs) == []  # the queue still holds messages: this may be one of them
    sweep(jobs, resend_after_s=0)
    assert dispatch(jobs) == [(job.id, 0)]


def test_the_chunk_of_a_dead_worker_is_sent_again(jobs: Jobs, store: VectorStore) -> None:
    job = submit(jobs, store, chunk(0, "a"))
    dispatch(jobs)
    lease(jobs, job, ttl_s=0.01)
    time.sleep(0.05)
    sweep(jobs)
    assert dispatch(jobs) == [(job.id, 0)]


def test_a_chunk_that_kills_workers_fails_eventually(jobs: Jobs, store: VectorStore) -> None:
    job = submit(jobs, store, chunk(0, "a", "b"), chunk(2, "c"))
    for _ in range(2):
        jobs.start_again(lease(jobs, job, ttl_s=0.01))
        time.sleep(0.03)
        sweep(jobs, max_attempts=2)
    finish(jobs, lease(jobs, job, 1))
    job = jobs.get(job.id)
    assert (job.status, job.counts.failed, job.counts.computed) == (JobStatus.COMPLETED, 2, 1)
    assert next(jobs.results(job.id)).errors[1].code == "worker_lost"


def test_cancelling_stops_what_waits_and_then_what_runs(jobs: Jobs, store: VectorStore) -> None:
    job = submit(jobs, store, chunk(0, "a"), chunk(1, "b"))
    work = lease(jobs, job, 0)
    assert jobs.cancel(job.id).status is JobStatus.CANCELLING
    assert jobs.lease_one(job.id, 1, owner="w2", ttl_s=60) is None
    assert not jobs.any_active([job.id])
    jobs.give_back([work])
    assert jobs.get(job.id).status is JobStatus.CANCELLED
    assert jobs.cancel(job.id).status is JobStatus.CANCELLED


def test_a_completed_job_cannot_be_cancelled(jobs: Jobs, store: VectorStore) -> None:
    put(store, ["a"], vectors(1))
    job = submit(jobs, store, chunk(0, "a"))
    with pytest.raises(ConflictError, match="is completed"):
        jobs.cancel(job.id)


def test_a_chunk_given_back_is_pending_again(jobs: Jobs, store: VectorStore) -> None:
    job = submit(jobs, store, chunk(0, "a"))
    dispatch(jobs)
    jobs.give_back([lease(jobs, job)])
    assert dispatch(jobs) == [(job.id, 0)]


def test_a_failed_job_records_why_and_stops(jobs: Jobs, store: VectorStore) -> None:
    job = submit(jobs, store, chunk(0, "a"))
    jobs.fail(job.id, ItemError("storage_full", "no room"))
    job = jobs.get(job.id)
    assert (job.status, job.error) == (JobStatus.FAILED, ItemError("storage_full", "no room"))
    assert dispatch(jobs) == []


def test_an_ended_job_accepts_no_more_texts(jobs: Jobs, store: VectorStore) -> None:
    job = jobs.add(SPACE, lane=Lane.BULK, device="cpu", why="test", truncate=True)
    jobs.cancel(job.id)
    with pytest.raises(ConflictError, match="accepts no more texts"):
        jobs.add_chunks(job, [chunk(0, "a")], lookup=store.lookup_on)


def test_a_late_job_expires_and_an_old_one_is_deleted(db: Database, store: VectorStore) -> None:
    jobs = Jobs(db, window_s=0, retention_s=0)
    job = submit(jobs, store, chunk(0, "a"))
    sweep(jobs)
    assert jobs.get(job.id).status is JobStatus.EXPIRED
    time.sleep(0.01)
    sweep(jobs)
    with pytest.raises(NotFoundError, match=job.id):
        jobs.get(job.id)


def test_an_upload_that_was_cut_off_fails(jobs: Jobs, store: VectorStore, monkeypatch: pytest.MonkeyPatch) -> None:
    job = jobs.add(SPACE, lane=Lane.BULK, device="cpu", why="test", truncate=True)
    monkeypatch.setattr("semel.tasks.jobs.sweep.UPLOAD_SILENCE_S", -1)
    sweep(jobs)
    assert jobs.get(job.id).error == ItemError("upload_cut_off", jobs.get(job.id).error.message)  # type: ignore[union-attr]


def test_the_keys_of_unexpired_jobs_are_needed(db: Database, jobs: Jobs, store: VectorStore) -> None:
    put(store, ["a", "b"], vectors(2))
    submit(jobs, store, chunk(0, "a"))
    expired = submit(Jobs(db, window_s=0, retention_s=-1), store, chunk(0, "b"))
    assert expired.status is JobStatus.COMPLETED
    with db.read() as conn:
        assert list(Holding(db).needed_keys(conn)) == input_keys(SPACE.fingerprint, ["a"])
    assert Pruner(db, keep=Holding(db).needed_keys).prune(max_bytes=0) == 1


def test_jobs_are_listed_newest_first_page_by_page(jobs: Jobs, store: VectorStore) -> None:
    made = []
    for i in range(5):
        made.append(submit(jobs, store, chunk(0, f"t{i}")).id)
        time.sleep(0.002)
    first = [job.id for job in jobs.list_jobs(limit=2)]
    rest = [job.id for job in jobs.list_jobs(limit=10, after=first[-1])]
    assert first + rest == made[::-1]


def test_refused_truncation_fails_hits_too(jobs: Jobs, store: VectorStore) -> None:
    key = input_keys(SPACE.fingerprint, ["long"])
    store.put_many(SPACE, key, vectors(1), tokens=[256], truncated=[True], producer=PRODUCER)
    job = submit(jobs, store, chunk(0, "long"), truncate=False)
    assert (job.counts.failed, job.counts.truncated) == (1, 1)
    assert next(jobs.results(job.id)).errors[0].code == "text_too_long"


def test_a_chunk_of_a_space_that_no_worker_serves_is_not_sent(jobs: Jobs, store: VectorStore) -> None:
    job = submit(jobs, store, chunk(0, "a"))
    take = {"lane": Lane.BULK, "device": "cpu", "window": 8}
    assert jobs.dispatch(**take, served={b"another space"}) == []  # type: ignore[arg-type]
    assert jobs.dispatch(**take, served={SPACE.fingerprint}) == [(job.id, 0)]  # type: ignore[arg-type]


def test_chunks_of_a_hung_worker_are_given_back_without_counting_the_attempt(jobs: Jobs, store: VectorStore) -> None:
    job = submit(jobs, store, chunk(0, "a"), chunk(1, "b"))
    for position in (0, 1):
        lease(jobs, job, position)
    jobs.give_back_uncharged([(job.id, 0)], owner="w1")
    jobs.give_back_uncharged([(job.id, 1)], owner="another")
    jobs.give_back_uncharged([], owner="w1")
    assert lease(jobs, job, 0).attempts == 1
    assert jobs.lease_one(job.id, 1, owner="w2", ttl_s=60) is None  # w1 still holds it


def test_a_prune_uses_one_connection(
    db: Database, jobs: Jobs, store: VectorStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, ["a", "b"], vectors(2))
    submit(jobs, store, chunk(0, "a"))
    with monkeypatch.context() as alone:
        alone.setattr(
            db, "read", lambda: pytest.fail("with its lock held, a prune must not wait for a second connection")
        )
        assert Pruner(db, keep=Holding(db).needed_keys).prune(max_bytes=0) == 1
    assert Pruner(db, keep=lambda *_: []).prune(max_bytes=0) == 1  # the first prune left no temporary table
