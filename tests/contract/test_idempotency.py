"""What idempotency keys promise, on SQLite and on PostgreSQL."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import update

from semel.db import Database
from semel.errors import ConflictError
from semel.tasks.jobs.idempotency import KEPT_S, RESERVED_S, Earlier, IdempotencyKeys, Reservation
from semel.tasks.jobs.schema import idempotency_keys
from semel.values.text import Lane
from tests.support.jobs import Jobs
from tests.support.values import space

DIGEST = bytes(range(32))


@pytest.fixture
def keys(db: Database) -> IdempotencyKeys:
    return IdempotencyKeys(db)


@pytest.fixture
def job_id(db: Database) -> str:
    jobs = Jobs(db, window_s=60, retention_s=60)
    return jobs.add(space(), lane=Lane.BULK, device="cpu", why="test", truncate=True).id


def age(db: Database, seconds: float) -> None:
    with db.write() as conn:
        conn.execute(update(idempotency_keys).values(created_at=time.time() - seconds))


def reserve(keys: IdempotencyKeys, key: str = "k", *, owner: str = "a") -> Reservation:
    reservation = keys.reserve(key, owner=owner, digest=lambda: DIGEST)
    assert isinstance(reservation, Reservation), reservation
    return reservation


def seal(db: Database, reservation: Reservation, job_id: str) -> None:
    with db.write() as conn:
        reservation.seal(conn, job_id)


def earlier(keys: IdempotencyKeys, key: str = "k") -> Earlier:
    found = keys.reserve(key, owner="who asks again", digest=lambda: DIGEST)
    assert isinstance(found, Earlier), found
    return found


def test_a_repeated_submission_gets_the_job_of_the_first(db: Database, keys: IdempotencyKeys, job_id: str) -> None:
    seal(db, reserve(keys), job_id)
    assert earlier(keys) == Earlier(job_id, DIGEST)
    reserve(keys, "another key")


def test_a_key_is_sealed_with_its_job_or_not_at_all(
    db: Database, keys: IdempotencyKeys, job_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs, reservation = Jobs(db, window_s=60, retention_s=60), reserve(keys)
    with monkeypatch.context() as patch:
        patch.setattr("semel.tasks.jobs.store.end_if_done", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            jobs.seal(job_id, reservation)
    with pytest.raises(ConflictError, match="under way"):
        reserve(keys)
    jobs.seal(job_id, reservation)
    assert earlier(keys).job_id == job_id


def test_a_submission_under_way_is_a_conflict_until_its_key_is_released(keys: IdempotencyKeys) -> None:
    reservation = reserve(keys)
    with pytest.raises(ConflictError, match="Idempotency-Key 'k' is under way; repeat the request when"):
        reserve(keys)
    keys.release(reservation)
    reserve(keys)


def test_a_sealed_key_is_not_released(db: Database, keys: IdempotencyKeys, job_id: str) -> None:
    reservation = reserve(keys)
    seal(db, reservation, job_id)
    keys.release(reservation)
    assert earlier(keys).job_id == job_id


def test_one_of_many_concurrent_submissions_gets_the_key(keys: IdempotencyKeys) -> None:
    def try_it(_: int) -> bool:
        try:
            reserve(keys)
        except ConflictError:
            return False
        return True

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(try_it, range(16))) == 1


def test_a_submission_that_goes_on_keeps_its_key(db: Database, keys: IdempotencyKeys) -> None:
    reservation = reserve(keys)
    age(db, RESERVED_S - 1)
    keys.renew(reservation)
    with pytest.raises(ConflictError, match="under way"):
        reserve(keys, owner="b")
    age(db, RESERVED_S + 1)
    reserve(keys, owner="b")  # two minutes after a crash the key is free


def test_reservations_expire_after_two_minutes_and_sealed_keys_after_a_day(
    db: Database, keys: IdempotencyKeys, job_id: str
) -> None:
    reserve(keys, "cut off")
    age(db, RESERVED_S + 1)
    seal(db, reserve(keys, "cut off"), job_id)
    age(db, RESERVED_S + 1)
    assert earlier(keys, "cut off").job_id == job_id
    age(db, KEPT_S + 1)
    reserve(keys, "cut off")


def test_the_key_of_a_deleted_job_is_free(db: Database, keys: IdempotencyKeys, job_id: str) -> None:
    jobs = Jobs(db, window_s=60, retention_s=60)
    seal(db, reserve(keys), job_id)
    jobs.cancel(job_id)
    assert earlier(keys).job_id == job_id, "a cancelled job is still a job"
    jobs.delete(job_id)
    reserve(keys)


def test_a_submission_that_lost_its_key_cannot_change_that_of_another(
    db: Database, keys: IdempotencyKeys, job_id: str
) -> None:
    lost = reserve(keys, owner="a")
    age(db, RESERVED_S + 1)
    kept = reserve(keys, owner="b")
    keys.release(lost)
    seal(db, lost, "job_of_a")
    seal(db, kept, job_id)
    assert earlier(keys) == Earlier(job_id, DIGEST)
