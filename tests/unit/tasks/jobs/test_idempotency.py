"""Idempotency keys: what a second submission gets, and when a key is free again."""

import time

import pytest

from semel.db import Database
from semel.errors import ConflictError
from semel.tasks.jobs.idempotency import KEPT_S, RESERVED_S, Earlier, IdempotencyKeys
from semel.tasks.jobs.schema import idempotency_keys
from tests.support.job_rows import change, create
from tests.support.jobs import Jobs

DIGEST = bytes(range(32))


@pytest.fixture
def keys(db: Database) -> IdempotencyKeys:
    return IdempotencyKeys(db)


def sealed(keys: IdempotencyKeys, jobs: Jobs, key: str = "k") -> Earlier:
    """A complete submission under this key."""
    job = create(jobs)
    assert keys.reserve(key, owner="first") is None
    keys.seal(key, owner="first", job_id=job.id, digest=DIGEST)
    return Earlier(job.id, DIGEST)


def age(db: Database, seconds: float) -> None:
    change(db, idempotency_keys, created_at=time.time() - seconds)


def test_a_repeated_submission_gets_the_first_job_and_its_digest(keys: IdempotencyKeys, jobs: Jobs) -> None:
    earlier = sealed(keys, jobs)
    for owner in ("first", "second"):
        assert keys.reserve("k", owner=owner) == earlier


def test_keys_do_not_affect_each_other(keys: IdempotencyKeys, jobs: Jobs) -> None:
    sealed(keys, jobs, "one")
    assert keys.reserve("two", owner="a") is None
    keys.release("two", owner="a")
    assert keys.reserve("one", owner="a") is not None


def test_a_submission_under_way_blocks_its_key_with_a_message_that_names_it(keys: IdempotencyKeys) -> None:
    keys.reserve("my key", owner="a")
    with pytest.raises(ConflictError, match=r"Idempotency-Key 'my key' is under way; repeat the request when"):
        keys.reserve("my key", owner="b")


def test_a_refused_submission_frees_its_key(keys: IdempotencyKeys) -> None:
    keys.reserve("k", owner="a")
    keys.release("k", owner="a")
    assert keys.reserve("k", owner="b") is None


def test_only_the_owner_releases_or_seals_a_key(keys: IdempotencyKeys, jobs: Jobs) -> None:
    keys.reserve("k", owner="a")
    keys.release("k", owner="b")
    keys.seal("k", owner="b", job_id=create(jobs).id, digest=DIGEST)
    with pytest.raises(ConflictError):
        keys.reserve("k", owner="c")


def test_a_sealed_key_is_not_released(keys: IdempotencyKeys, jobs: Jobs) -> None:
    earlier = sealed(keys, jobs)
    keys.release("k", owner="first")
    assert keys.reserve("k", owner="second") == earlier


def test_sealing_a_key_that_was_never_reserved_does_nothing(keys: IdempotencyKeys, jobs: Jobs) -> None:
    keys.seal("k", owner="a", job_id=create(jobs).id, digest=DIGEST)
    assert keys.reserve("k", owner="a") is None


@pytest.mark.parametrize(("age_s", "free"), [(RESERVED_S - 60, False), (RESERVED_S + 60, True)])
def test_a_crash_blocks_a_key_for_an_hour(keys: IdempotencyKeys, db: Database, age_s: float, free: bool) -> None:
    keys.reserve("k", owner="crashed")
    age(db, age_s)
    if free:
        assert keys.reserve("k", owner="b") is None
    else:
        with pytest.raises(ConflictError):
            keys.reserve("k", owner="b")


@pytest.mark.parametrize(("age_s", "free"), [(KEPT_S - 60, False), (KEPT_S + 60, True)])
def test_a_submission_is_remembered_for_a_day(
    keys: IdempotencyKeys, jobs: Jobs, db: Database, age_s: float, free: bool
) -> None:
    earlier = sealed(keys, jobs)
    age(db, age_s)
    assert keys.reserve("k", owner="b") == (None if free else earlier)


def test_the_key_of_a_deleted_job_is_free_again(keys: IdempotencyKeys, jobs: Jobs) -> None:
    earlier = sealed(keys, jobs)
    jobs.cancel(earlier.job_id)
    assert keys.reserve("k", owner="b") == earlier, "a cancelled job is still a job"
    jobs.delete(earlier.job_id)
    assert keys.reserve("k", owner="b") is None
