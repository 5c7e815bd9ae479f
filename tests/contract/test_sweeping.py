"""A sweep on both databases: bounded transactions, one clock, and duties that do not hold up one another."""

import time

import pytest

from semel.cache.store import VectorStore
from semel.clock import time_of
from semel.db import Database
from semel.errors import UnavailableError
from semel.tasks.jobs import sweep as sweep_module
from semel.tasks.jobs.sweep import Sweeper, Swept
from tests.contract.test_jobs import chunk, lease, submit
from tests.support.jobs import Jobs


@pytest.fixture
def jobs(db: Database) -> Jobs:
    return Jobs(db, window_s=600, retention_s=600)


@pytest.fixture
def sweeper(db: Database, store: VectorStore) -> Sweeper:
    return Sweeper(db, retention_s=600, max_attempts=5, lookup=store.lookup_on)


def test_many_jobs_that_expire_together_are_deleted_some_at_a_time(
    jobs: Jobs, store: VectorStore, sweeper: Sweeper, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(5):
        jobs.cancel(submit(jobs, store, chunk(0, f"t{i}")).id)
    with db.write() as conn:
        conn.exec_driver_sql("UPDATE jobs SET expires_at = 1")
    monkeypatch.setattr(sweep_module, "_MOST_ROWS", 2)
    assert [sweeper.sweep().jobs_deleted for _ in range(4)] == [2, 2, 1, 0]


def test_a_duty_that_fails_does_not_hold_up_the_others(
    jobs: Jobs, store: VectorStore, sweeper: Sweeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = submit(jobs, store, chunk(0, "a"))
    lease(jobs, job, ttl_s=-1)

    def fails(_which: object) -> int:
        raise UnavailableError("no such table")

    monkeypatch.setattr(sweeper, "_delete", fails)
    good = sweeper.last_good_at
    with pytest.raises(UnavailableError, match="no such table"):
        sweeper.sweep()
    assert lease(jobs, job, owner="w2").attempts == 2, "the lease was freed"
    assert sweeper.last_good_at == good, "the age of the last good sweep shows it"


def test_the_lease_of_a_worker_that_is_certainly_dead_ends_at_once(
    jobs: Jobs, store: VectorStore, sweeper: Sweeper
) -> None:
    job = submit(jobs, store, chunk(0, "a"), chunk(1, "b"))
    lease(jobs, job, 0, owner="dead")
    lease(jobs, job, 1, owner="alive")
    assert sorted(sweeper.owners()) == ["alive", "dead"]
    assert sweeper.sweep(gone={"dead"}) == Swept(leases_expired=1)
    assert sweeper.owners() == ["alive"]


def test_after_a_pause_live_workers_renew_before_a_lease_ends(
    jobs: Jobs, store: VectorStore, sweeper: Sweeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweeper.sweep()
    job = submit(jobs, store, chunk(0, "a"))
    work = lease(jobs, job, ttl_s=-1)
    now = time.monotonic() + 60  # the database stood still for a minute
    monkeypatch.setattr("semel.tasks.jobs.sweep.time.monotonic", lambda: now)
    assert sweeper.sweep() == Swept()
    assert jobs.renew([(job.id, 0)], owner=work.owner, ttl_s=30) == {(job.id, 0)}


def test_a_lease_that_has_passed_on_is_not_renewed(jobs: Jobs, store: VectorStore) -> None:
    job = submit(jobs, store, chunk(0, "a"))
    lease(jobs, job, owner="w1", ttl_s=-1)
    lease(jobs, job, owner="w2")
    assert jobs.renew([(job.id, 0)], owner="w1", ttl_s=30) == set()


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_the_time_is_that_of_the_server_and_a_host_with_a_wrong_clock_sweeps_nothing(
    jobs: Jobs, store: VectorStore, db: Database, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease(jobs, submit(jobs, store, chunk(0, "a")), ttl_s=5)
    here = time.time()
    monkeypatch.setattr("semel.clock.time.time", lambda: here + 31 * 86400)
    wrong = Database(database_url)
    sweeper = Sweeper(wrong, retention_s=600, max_attempts=5, lookup=store.lookup_on)
    assert sweeper.sweep() == Swept()
    assert not wrong.clock.is_right
    with wrong.read() as conn:
        assert abs(time_of(conn) - here) < 60
    late = Jobs(wrong, window_s=600, retention_s=600)
    created = submit(late, store, chunk(0, "b"))
    assert abs(created.created_at - here) < 60, "rows have the time of the server"
    wrong.close()
