"""What a sweep repairs, and what it leaves alone."""

import time

import pytest
from sqlalchemy import select

from semel.cache.store import VectorStore
from semel.db import Database
from semel.tasks.jobs.retry import retry
from semel.tasks.jobs.schema import chunks, webhooks
from semel.tasks.jobs.schema import jobs as job_table
from semel.tasks.jobs.sweep import UPLOAD_SILENCE_S, Sweeper, Swept
from semel.tasks.jobs.webhooks import WebhookStore
from semel.values.job import JobStatus
from semel.values.text import Lane, Outcome
from tests.support.job_rows import BROKEN, change, create, finish, lease, states, submit
from tests.support.jobs import Jobs

HERE = [(Lane.BULK, "cpu")]


@pytest.fixture
def sweeper(db: Database) -> Sweeper:
    return Sweeper(db, retention_s=600, max_attempts=2, lookup=VectorStore(db).lookup_on)


def dispatch(jobs: Jobs, window: int = 8) -> list[tuple[str, int]]:
    return jobs.dispatch(lane=Lane.BULK, device="cpu", window=window)


def test_a_healthy_database_is_not_written_to(
    jobs: Jobs, store: VectorStore, sweeper: Sweeper, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = submit(jobs, store, "a", "b", "c")
    create(jobs)
    dispatch(jobs, window=2)
    lease(jobs, job, 0)
    jobs.fail(submit(jobs, store, "d").id, BROKEN)
    monkeypatch.setattr(db, "write", lambda **_: pytest.fail("nothing is to be repaired"))
    assert sweeper.sweep(empty_queues=[], resend_after_s=60) == Swept()
    assert sweeper.sweep(empty_queues=HERE, resend_after_s=60) == Swept(), "the message may still be on its way"


# Leases


def test_the_chunk_of_a_dead_worker_is_pending_again(
    jobs: Jobs, store: VectorStore, sweeper: Sweeper, db: Database
) -> None:
    job = submit(jobs, store, "a", "b")
    lease(jobs, job, 0, ttl_s=-1)
    lease(jobs, job, 1, owner="alive")
    assert sweeper.sweep() == Swept(leases_expired=1)
    assert states(db, job) == ["pending", "running"]
    assert lease(jobs, job, 0, owner="w2").attempts == 2


def test_a_chunk_that_killed_too_many_workers_fails_its_texts(jobs: Jobs, store: VectorStore, sweeper: Sweeper) -> None:
    job = submit(jobs, store, "ab", "c")
    lease(jobs, job, 0, ttl_s=-1)
    sweeper.sweep()
    jobs.start_again(lease(jobs, job, 0, ttl_s=-1))
    assert sweeper.sweep() == Swept(leases_expired=1)
    (result,) = jobs.results(job.id)
    assert result.outcomes == [Outcome.FAILED, Outcome.FAILED]
    assert {error.code for error in result.errors.values()} == {"worker_lost"}
    assert "2 workers died" in result.errors[0].message
    assert jobs.get(job.id).status is JobStatus.IN_PROGRESS, "the other chunk goes on"


def test_a_job_ends_with_its_last_chunk_even_if_that_failed(jobs: Jobs, store: VectorStore, db: Database) -> None:
    job = submit(jobs, store, "a", "b")
    finish(jobs, lease(jobs, job, 0))
    lease(jobs, job, 1, ttl_s=-1)
    Sweeper(db, retention_s=600, max_attempts=1, lookup=VectorStore(db).lookup_on).sweep()
    done = jobs.get(job.id)
    assert (done.status, done.counts.computed, done.counts.failed) == (JobStatus.COMPLETED, 1, 1)


def test_texts_that_an_earlier_run_settled_do_not_fail_with_the_chunk(
    jobs: Jobs, store: VectorStore, db: Database
) -> None:
    job = submit(jobs, store, "abc")
    finish(jobs, lease(jobs, job), failed={1: BROKEN})
    retry(db, job.id, window_s=60)
    lease(jobs, job, ttl_s=-1)
    Sweeper(db, retention_s=600, max_attempts=1, lookup=VectorStore(db).lookup_on).sweep()
    (result,) = jobs.results(job.id)
    assert result.outcomes == [Outcome.COMPUTED, Outcome.FAILED, Outcome.COMPUTED]
    assert list(result.errors) == [1]
    counts = jobs.get(job.id).counts
    assert (counts.computed, counts.failed, counts.done) == (2, 1, 3)


def test_a_worker_that_lost_its_chunk_to_a_sweep_cannot_finish_it(
    jobs: Jobs, store: VectorStore, sweeper: Sweeper
) -> None:
    job = submit(jobs, store, "a")
    late = lease(jobs, job, ttl_s=-1)
    sweeper.sweep()
    assert not finish(jobs, late)
    assert finish(jobs, lease(jobs, job, owner="w2"))


# Messages


def test_a_message_is_lost_if_its_queue_is_empty_and_it_was_sent_long_enough_ago(
    jobs: Jobs, store: VectorStore, sweeper: Sweeper, db: Database
) -> None:
    job = submit(jobs, store, "a", "b")
    dispatch(jobs)
    change(db, chunks, sent_at=time.time() - 30)
    assert sweeper.sweep(empty_queues=HERE, resend_after_s=60) == Swept()
    assert sweeper.sweep(empty_queues=[(Lane.INTERACTIVE, "cpu"), (Lane.BULK, "mlx")], resend_after_s=10) == Swept()
    assert sweeper.sweep(empty_queues=HERE, resend_after_s=10) == Swept(messages_lost=2)
    assert dispatch(jobs) == [(job.id, 0), (job.id, 1)]


def test_a_running_chunk_needs_no_message(jobs: Jobs, store: VectorStore, sweeper: Sweeper, db: Database) -> None:
    job = submit(jobs, store, "a")
    dispatch(jobs)
    lease(jobs, job)
    assert sweeper.sweep(empty_queues=HERE, resend_after_s=-1) == Swept()
    assert states(db, job) == ["running"]


# Jobs and uploads


def test_an_upload_that_fell_silent_fails_and_an_active_one_goes_on(jobs: Jobs, sweeper: Sweeper, db: Database) -> None:
    silent, active = create(jobs), create(jobs)
    change(db, job_table, touched_at=time.time() - UPLOAD_SILENCE_S - 1)
    jobs.touch(active.id)
    assert sweeper.sweep() == Swept(uploads_cut_off=1)
    failed = jobs.get(silent.id)
    assert failed.status is JobStatus.FAILED
    assert failed.error is not None
    assert failed.error.code == "upload_cut_off"
    assert jobs.get(active.id).status is JobStatus.VALIDATING


def test_a_complete_job_may_be_silent_for_any_time(
    jobs: Jobs, store: VectorStore, sweeper: Sweeper, db: Database
) -> None:
    submit(jobs, store, "a")
    change(db, job_table, touched_at=0.0)
    assert sweeper.sweep() == Swept()


def test_a_job_whose_window_is_over_expires(jobs: Jobs, store: VectorStore, sweeper: Sweeper, db: Database) -> None:
    job = submit(jobs, store, "a", "b")
    finish(jobs, lease(jobs, job, 0))
    change(db, job_table, expires_at=time.time() - 1)
    assert sweeper.sweep() == Swept(jobs_expired=1)
    expired = jobs.get(job.id)
    assert (expired.status, expired.counts.computed) == (JobStatus.EXPIRED, 1)
    assert expired.expires_at == pytest.approx(time.time() + 600, abs=5), "kept as long as any ended job"
    assert states(db, job) == ["done", "cancelled"]


def test_an_old_job_is_deleted_with_its_chunks_and_its_webhook(
    jobs: Jobs, store: VectorStore, sweeper: Sweeper, db: Database
) -> None:
    old, kept = submit(jobs, store, "a"), submit(jobs, store, "b")
    for job in (old, kept):
        WebhookStore(db).add(job.id, "https://example.org")
        jobs.fail(job.id, BROKEN)
    with db.write() as conn:
        conn.execute(job_table.update().where(job_table.c.id == old.id).values(expires_at=time.time() - 1))
    assert sweeper.sweep() == Swept(jobs_deleted=1)
    with db.read() as conn:
        for column in (job_table.c.id, chunks.c.job_id, webhooks.c.job_id):
            assert set(conn.execute(select(column)).scalars()) == {kept.id}


def test_a_job_that_is_being_cancelled_waits_for_a_living_worker_only(
    jobs: Jobs, store: VectorStore, sweeper: Sweeper, db: Database
) -> None:
    job = submit(jobs, store, "a")
    lease(jobs, job)
    jobs.cancel(job.id)
    sweeper.sweep()
    assert jobs.get(job.id).status is JobStatus.CANCELLING
    change(db, chunks, lease_until=time.time() - 1)
    sweeper.sweep()
    assert jobs.get(job.id).status is JobStatus.CANCELLED


def test_sweeping_again_changes_nothing(jobs: Jobs, store: VectorStore, sweeper: Sweeper, db: Database) -> None:
    job = submit(jobs, store, "a")
    lease(jobs, job, ttl_s=-1)
    create(jobs)
    change(db, job_table, touched_at=0.0)
    assert sweeper.sweep() == Swept(leases_expired=1, uploads_cut_off=1)
    assert sweeper.sweep() == Swept()
