"""Chunks and workers: who gets which chunk, and what a lost lease may still do."""

import time

import pytest
from sqlalchemy import select

from semel.cache.store import VectorStore
from semel.db import Database
from semel.tasks.jobs.schema import chunks
from semel.tasks.jobs.schema import jobs as job_table
from semel.values.job import Job, JobStatus
from semel.values.text import ItemError, Lane, Outcome
from tests.support.job_rows import BROKEN, SPACE, change, create, finish, job_row, lease, new_chunk, states, submit
from tests.support.jobs import Jobs
from tests.support.values import space


def dispatch(jobs: Jobs, *, window: int = 8, lane: Lane = Lane.BULK, device: str = "cpu") -> list[tuple[str, int]]:
    return jobs.dispatch(lane=lane, device=device, window=window)


def lease_until(db: Database, job: Job, position: int = 0) -> float:
    here = (chunks.c.job_id == job.id) & (chunks.c.position == position)
    with db.read() as conn:
        return float(conn.execute(select(chunks.c.lease_until).where(here)).scalar_one())


# Dispatch


def test_only_the_chunks_of_a_queue_are_sent_there(jobs: Jobs, store: VectorStore) -> None:
    here = submit(jobs, store, "a")
    submit(jobs, store, "b", device="cuda")
    submit(jobs, store, "c", lane=Lane.INTERACTIVE)
    assert dispatch(jobs) == [(here.id, 0)]


def test_chunks_of_an_upload_are_sent_before_it_is_complete(jobs: Jobs, store: VectorStore) -> None:
    job = create(jobs)
    jobs.add_chunks(job, [new_chunk(0, "a")], lookup=store.lookup_on)
    assert dispatch(jobs) == [(job.id, 0)]


def test_chunks_of_an_ended_job_are_not_sent(jobs: Jobs, store: VectorStore, db: Database) -> None:
    job = submit(jobs, store, "a")
    jobs.fail(job.id, BROKEN)
    change(db, chunks, state="pending")  # as after a sweep that freed it from a dead worker
    assert dispatch(jobs) == []


def test_running_chunks_count_as_under_way(jobs: Jobs, store: VectorStore) -> None:
    job = submit(jobs, store, *"abcd")
    dispatch(jobs, window=2)
    lease(jobs, job, 0)
    assert dispatch(jobs, window=2) == []
    assert dispatch(jobs, window=3) == [(job.id, 2)]


def test_a_window_that_is_more_than_full_sends_nothing(jobs: Jobs, store: VectorStore) -> None:
    submit(jobs, store, *"abcd")
    assert len(dispatch(jobs, window=3)) == 3
    assert dispatch(jobs, window=1) == []


def test_chunks_under_way_elsewhere_leave_the_window_free(jobs: Jobs, store: VectorStore) -> None:
    submit(jobs, store, *"ab", device="cuda")
    job = submit(jobs, store, *"cd")
    assert len(dispatch(jobs, window=2, device="cuda")) == 2
    assert dispatch(jobs, window=2) == [(job.id, 0), (job.id, 1)]


def test_equal_jobs_take_turns_from_the_start(jobs: Jobs, store: VectorStore) -> None:
    first, second = submit(jobs, store, *"abc"), submit(jobs, store, *"def")
    assert dispatch(jobs, window=4) == [(first.id, 0), (second.id, 0), (first.id, 1), (second.id, 1)]


def test_a_short_job_leaves_its_turns_to_the_others(jobs: Jobs, store: VectorStore) -> None:
    short, long = submit(jobs, store, "a"), submit(jobs, store, *"bcd")
    assert dispatch(jobs, window=4) == [(short.id, 0), (long.id, 0), (long.id, 1), (long.id, 2)]


def test_with_more_jobs_than_the_window_the_oldest_are_sent(jobs: Jobs, store: VectorStore) -> None:
    made = [submit(jobs, store, letter) for letter in "abc"]
    assert dispatch(jobs, window=2) == [(job.id, 0) for job in made[:2]]


def test_a_space_that_is_not_served_does_not_hold_up_the_others(jobs: Jobs, store: VectorStore) -> None:
    submit(jobs, store, "a", into=space(weights="w2"))
    served = submit(jobs, store, "b")
    take = {"lane": Lane.BULK, "device": "cpu", "window": 1}
    assert jobs.dispatch(**take, served=[]) == []  # type: ignore[arg-type]
    assert jobs.dispatch(**take, served=[SPACE.fingerprint]) == [(served.id, 0)]  # type: ignore[arg-type]


def test_a_sent_chunk_records_when(jobs: Jobs, store: VectorStore) -> None:
    job, before = submit(jobs, store, "a"), time.time()
    dispatch(jobs)
    sent_at = lease(jobs, job).sent_at
    assert sent_at is not None
    assert before <= sent_at <= time.time()


def test_the_trace_of_each_job_is_found(jobs: Jobs, db: Database) -> None:
    traced, other = create(jobs), create(jobs)
    with db.write() as conn:
        conn.execute(job_table.update().where(job_table.c.id == traced.id).values(traceparent="00-1-2-01"))
    assert jobs.traceparents([traced.id, other.id, "job_nope"]) == {traced.id: "00-1-2-01", other.id: None}


# Leases


def test_a_leased_chunk_carries_what_its_worker_needs(jobs: Jobs, store: VectorStore) -> None:
    job = submit(jobs, store, "ab", "c", truncate=False, lane=Lane.INTERACTIVE)
    work = lease(jobs, job, 1, owner="w1")
    assert (work.job_id, work.position, work.owner, work.attempts) == (job.id, 1, "w1", 1)
    assert (work.first_index, work.texts(), work.lane, work.truncate) == (2, ["c"], Lane.INTERACTIVE, False)
    assert (work.model, work.prompt_name, work.fingerprint) == ("m", "", SPACE.fingerprint)
    assert (list(work.before), work.kept) == ([], set())


def test_a_chunk_may_be_leased_before_its_message_was_sent(jobs: Jobs, store: VectorStore) -> None:
    job = submit(jobs, store, "a")
    assert lease(jobs, job).sent_at is None


@pytest.mark.parametrize("status", ["cancelling", "cancelled", "failed", "expired"])
def test_no_chunk_of_a_job_that_stopped_is_leased(jobs: Jobs, store: VectorStore, db: Database, status: str) -> None:
    job = submit(jobs, store, "a")
    change(db, job_table, status=status)
    assert jobs.lease_one(job.id, 0, owner="w", ttl_s=60) is None


def test_a_chunk_that_does_not_exist_is_not_leased(jobs: Jobs, store: VectorStore) -> None:
    job = submit(jobs, store, "a")
    assert jobs.lease_one(job.id, 1, owner="w", ttl_s=60) is None
    assert jobs.lease_one("job_nope", 0, owner="w", ttl_s=60) is None


def test_every_lease_of_a_chunk_counts_as_an_attempt(jobs: Jobs, store: VectorStore) -> None:
    job = submit(jobs, store, "a")
    assert [lease(jobs, job, owner=owner, ttl_s=-1).attempts for owner in ("w1", "w2", "w1")] == [1, 2, 3]


def test_the_first_lease_ends_the_wait_of_a_job(jobs: Jobs, store: VectorStore, db: Database) -> None:
    job = submit(jobs, store, "a", "b", waits=True, device="mlx")
    lease(jobs, job, 0)
    row = job_row(db, job)
    assert (row.waits, row.why) == (False, "mlx: the job waited for a worker")


def test_a_lease_leaves_the_reason_of_a_job_that_did_not_wait(jobs: Jobs, store: VectorStore) -> None:
    job = submit(jobs, store, "a")
    lease(jobs, job)
    assert jobs.get(job.id).why == "test"


def test_only_the_holder_of_a_lease_renews_it(jobs: Jobs, store: VectorStore, db: Database) -> None:
    job = submit(jobs, store, "a", "b")
    lease(jobs, job, 0, owner="w1")
    lease(jobs, job, 1, owner="w2")
    before = [lease_until(db, job, position) for position in (0, 1)]
    jobs.renew([(job.id, 0), (job.id, 1)], owner="w1", ttl_s=600)
    after = [lease_until(db, job, position) for position in (0, 1)]
    assert after[0] > before[0] + 500
    assert after[1] == before[1]


def test_a_finished_chunk_is_not_renewed(jobs: Jobs, store: VectorStore, db: Database) -> None:
    job = submit(jobs, store, "a")
    finish(jobs, lease(jobs, job))
    before = lease_until(db, job)
    jobs.renew([(job.id, 0)], owner="w", ttl_s=600)
    assert lease_until(db, job) == before


# Finishing


def test_a_chunk_is_finished_once(jobs: Jobs, store: VectorStore) -> None:
    job = submit(jobs, store, "ab")
    work = lease(jobs, job)
    assert finish(jobs, work)
    assert not finish(jobs, work)
    assert (jobs.get(job.id).counts.computed, jobs.get(job.id).chunks_done) == (2, 1)


def test_the_first_of_two_leases_of_one_worker_cannot_finish(jobs: Jobs, store: VectorStore) -> None:
    job = submit(jobs, store, "a")
    first, second = lease(jobs, job, ttl_s=-1), lease(jobs, job)
    assert not finish(jobs, first)
    jobs.give_back([first])
    assert finish(jobs, second)


def test_a_worker_may_finish_late_when_no_other_took_the_chunk(jobs: Jobs, store: VectorStore) -> None:
    job = submit(jobs, store, "a")
    assert finish(jobs, lease(jobs, job, ttl_s=-1))
    assert jobs.get(job.id).status is JobStatus.COMPLETED


def test_outcomes_errors_and_totals_are_recorded(jobs: Jobs, store: VectorStore) -> None:
    job = submit(jobs, store, "abc")
    error = ItemError("backend_error", "the device failed")
    outcomes = [Outcome.HIT, Outcome.FAILED, Outcome.COALESCED]
    assert jobs.finish_one(lease(jobs, job), outcomes, {1: error}, truncated=1, tokens=12)
    (result,) = jobs.results(job.id)
    assert (result.outcomes, result.errors) == (outcomes, {1: error})
    counts = jobs.get(job.id).counts
    assert (counts.hit, counts.coalesced, counts.failed, counts.truncated, counts.tokens) == (1, 1, 1, 1, 12)


def test_a_chunk_that_finishes_after_a_cancellation_ends_its_job(jobs: Jobs, store: VectorStore) -> None:
    job = submit(jobs, store, "a", "b")
    work = lease(jobs, job, 0)
    jobs.cancel(job.id)
    assert finish(jobs, work)
    ended = jobs.get(job.id)
    assert (ended.status, ended.counts.computed) == (JobStatus.CANCELLED, 1)


# Giving back


def test_a_chunk_that_is_given_back_keeps_its_attempt(jobs: Jobs, store: VectorStore, db: Database) -> None:
    job = submit(jobs, store, "a")
    jobs.give_back([lease(jobs, job)])
    assert states(db, job) == ["pending"]
    assert lease(jobs, job, owner="w2").attempts == 2


def test_a_chunk_of_a_cancelled_job_is_not_pending_again(jobs: Jobs, store: VectorStore, db: Database) -> None:
    job = submit(jobs, store, "a", "b")
    work = [lease(jobs, job, position) for position in (0, 1)]
    jobs.cancel(job.id)
    jobs.give_back([work[0]])
    assert states(db, job) == ["cancelled", "running"]
    assert jobs.get(job.id).status is JobStatus.CANCELLING
    jobs.give_back([work[1]])
    assert jobs.get(job.id).status is JobStatus.CANCELLED


def test_a_lost_lease_gives_nothing_back(jobs: Jobs, store: VectorStore, db: Database) -> None:
    job = submit(jobs, store, "a")
    lost = lease(jobs, job, owner="w1", ttl_s=-1)
    lease(jobs, job, owner="w2")
    jobs.give_back([lost])
    assert states(db, job) == ["running"]


def test_uncharged_chunks_of_a_stopped_job_stay_with_their_worker(jobs: Jobs, store: VectorStore, db: Database) -> None:
    job = submit(jobs, store, "a")
    lease(jobs, job)
    jobs.cancel(job.id)
    jobs.give_back_uncharged([(job.id, 0)], owner="w")
    assert states(db, job) == ["running"], "the sweep ends it when the lease has expired"
