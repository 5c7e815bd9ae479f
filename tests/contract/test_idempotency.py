"""What idempotency keys promise, on SQLite and on PostgreSQL."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import update

from semel.db import Database
from semel.errors import ConflictError
from semel.tasks.jobs.idempotency import KEPT_S, RESERVED_S, Earlier, IdempotencyKeys
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


def test_a_repeated_submission_gets_the_job_of_the_first(keys: IdempotencyKeys, job_id: str) -> None:
    assert keys.reserve("k", owner="a") is None
    keys.seal("k", owner="a", job_id=job_id, digest=DIGEST)
    assert keys.reserve("k", owner="a") == Earlier(job_id, DIGEST)
    assert keys.reserve("K", owner="a") is None, "another key"


def test_a_submission_under_way_is_a_conflict_until_its_key_is_released(keys: IdempotencyKeys) -> None:
    assert keys.reserve("k", owner="a") is None
    with pytest.raises(ConflictError, match="under way"):
        keys.reserve("k", owner="a")
    keys.release("k", owner="a")
    assert keys.reserve("k", owner="a") is None


def test_a_sealed_key_is_not_released(keys: IdempotencyKeys, job_id: str) -> None:
    keys.reserve("k", owner="a")
    keys.seal("k", owner="a", job_id=job_id, digest=DIGEST)
    keys.release("k", owner="a")
    assert keys.reserve("k", owner="a") is not None


def test_one_of_many_concurrent_submissions_gets_the_key(keys: IdempotencyKeys) -> None:
    def reserve(_: int) -> bool:
        try:
            return keys.reserve("k", owner="a") is None
        except ConflictError:
            return False

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(reserve, range(16))) == 1


def test_a_submission_that_goes_on_keeps_its_key(db: Database, keys: IdempotencyKeys) -> None:
    keys.reserve("k", owner="a")
    age(db, RESERVED_S - 1)
    keys.renew("k", owner="a")
    with pytest.raises(ConflictError, match="under way"):
        keys.reserve("k", owner="b")
    age(db, RESERVED_S + 1)
    assert keys.reserve("k", owner="b") is None, "two minutes after a crash the key is free"


def test_reservations_expire_after_two_minutes_and_sealed_keys_after_a_day(
    db: Database, keys: IdempotencyKeys, job_id: str
) -> None:
    keys.reserve("cut off", owner="a")
    age(db, RESERVED_S + 1)
    assert keys.reserve("cut off", owner="a") is None
    keys.seal("cut off", owner="a", job_id=job_id, digest=DIGEST)
    age(db, RESERVED_S + 1)
    assert keys.reserve("cut off", owner="a") is not None, "a sealed key is kept for a day"
    age(db, KEPT_S + 1)
    assert keys.reserve("cut off", owner="a") is None


def test_the_key_of_a_deleted_job_is_free(keys: IdempotencyKeys) -> None:
    keys.reserve("k", owner="a")
    keys.seal("k", owner="a", job_id="job_deleted", digest=DIGEST)
    assert keys.reserve("k", owner="a") is None


def test_a_submission_that_lost_its_key_cannot_change_that_of_another(
    db: Database, keys: IdempotencyKeys, job_id: str
) -> None:
    keys.reserve("k", owner="a")
    age(db, RESERVED_S + 1)
    assert keys.reserve("k", owner="b") is None
    keys.release("k", owner="a")
    keys.seal("k", owner="a", job_id="job_of_a", digest=DIGEST)
    keys.seal("k", owner="b", job_id=job_id, digest=DIGEST)
    assert keys.reserve("k", owner="c") == Earlier(job_id, DIGEST)
