"""Pruning: which vectors each condition selects, and that needed ones stay whatever the condition."""

import time
from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, update

from semel.cache import prune as prune_module
from semel.cache.keys import input_keys
from semel.cache.prune import Pruner
from semel.cache.schema import vectors as vectors_table
from semel.cache.store import VectorStore
from semel.db import Database
from tests.support.values import put, space, vectors

SPACE, OTHER = space(), space(weights="w2")
ROW_BYTES = 16
"""A float32 vector of four numbers."""


def keys(*texts: str) -> list[bytes]:
    return input_keys(SPACE.fingerprint, texts)


@pytest.fixture
def aged(db: Database, store: VectorStore) -> VectorStore:
    """Four vectors "t0" to "t3", stored 400, 300, 200 and 100 seconds ago."""
    texts = [f"t{i}" for i in range(4)]
    put(store, texts, vectors(4))
    now = time.time()
    with db.write() as conn:
        for i, key in enumerate(keys(*texts)):
            conn.execute(update(vectors_table).where(vectors_table.c.key == key).values(created_at=now - 400 + 100 * i))
    return store


def left(store: VectorStore) -> list[str]:
    """The texts of `aged` that still have a vector."""
    present = store.present(keys("t0", "t1", "t2", "t3"))
    return [text for text in ("t0", "t1", "t2", "t3") if keys(text)[0] in present]


def pruner(db: Database, *needed: str) -> Pruner:
    return Pruner(db, keep=lambda *_: [b"".join(keys(*needed))])


def test_counting_deletes_nothing(db: Database, aged: VectorStore) -> None:
    counting = pruner(db)
    assert counting.count(max_bytes=0) == 4
    assert counting.count(older_than_s=250) == 2
    assert counting.count(fingerprint=OTHER.fingerprint) == 0
    assert left(aged) == ["t0", "t1", "t2", "t3"]
    assert counting.pruned == 0


@pytest.mark.parametrize(
    ("max_bytes", "kept"),
    [
        (4 * ROW_BYTES, ["t0", "t1", "t2", "t3"]),
        (4 * ROW_BYTES - 1, ["t1", "t2", "t3"]),
        (2 * ROW_BYTES, ["t2", "t3"]),
        (ROW_BYTES - 1, []),
        (0, []),
    ],
)
def test_the_oldest_vectors_go_until_the_rest_fits(
    db: Database, aged: VectorStore, max_bytes: int, kept: list[str]
) -> None:
    assert pruner(db).prune(max_bytes=max_bytes) == 4 - len(kept)
    assert left(aged) == kept


def test_vectors_go_by_age(db: Database, aged: VectorStore) -> None:
    assert pruner(db).prune(older_than_s=250) == 2
    assert left(aged) == ["t2", "t3"]


def test_a_vector_must_meet_every_condition(db: Database, aged: VectorStore) -> None:
    assert pruner(db).prune(max_bytes=0, older_than_s=350) == 1
    assert left(aged) == ["t1", "t2", "t3"]


def test_with_a_space_the_bytes_of_other_spaces_do_not_count(db: Database, aged: VectorStore) -> None:
    put(aged, ["a", "b"], vectors(2), into=OTHER)
    assert pruner(db).prune(max_bytes=4 * ROW_BYTES, fingerprint=SPACE.fingerprint) == 0
    assert pruner(db).prune(max_bytes=ROW_BYTES, fingerprint=OTHER.fingerprint) == 1
    assert len(left(aged)) == 4


def test_a_needed_vector_stays_and_a_younger_one_goes_for_it(db: Database, aged: VectorStore) -> None:
    assert pruner(db, "t0", "t2").prune(max_bytes=2 * ROW_BYTES) == 2
    assert left(aged) == ["t0", "t2"]


def test_needed_vectors_stay_even_above_the_limit(db: Database, aged: VectorStore) -> None:
    assert pruner(db, "t0", "t1", "t2").prune(max_bytes=0) == 1
    assert left(aged) == ["t0", "t1", "t2"]


def test_needed_vectors_stay_whatever_their_age_and_space(db: Database, aged: VectorStore) -> None:
    assert pruner(db, "t0").prune(older_than_s=250) == 1
    assert pruner(db, "t0").prune(fingerprint=SPACE.fingerprint) == 2
    assert left(aged) == ["t0"]


def test_without_a_condition_everything_that_is_not_needed_goes(db: Database, aged: VectorStore) -> None:
    assert pruner(db, "t3").prune() == 3
    assert left(aged) == ["t3"]


def test_two_jobs_may_need_the_same_vectors(db: Database, aged: VectorStore) -> None:
    packed = b"".join(keys("t0", "t1"))
    assert Pruner(db, keep=lambda *_: [packed, b"", packed]).prune(max_bytes=0) == 2
    assert left(aged) == ["t0", "t1"]


def test_deletions_are_counted_over_all_prunes(db: Database, aged: VectorStore) -> None:
    counting = pruner(db)
    counting.prune(older_than_s=350)
    counting.prune(older_than_s=250)
    assert counting.pruned == 2


def test_needed_keys_are_read_in_the_transaction_of_the_prune(db: Database, aged: VectorStore) -> None:
    seen: list[tuple[bool, int]] = []

    def keep(conn: Connection, _since: float) -> Iterator[bytes]:
        rows = conn.exec_driver_sql("SELECT count(*) FROM vectors").scalar_one()
        seen.append((conn.in_transaction(), rows))
        yield b""

    Pruner(db, keep=keep).prune(max_bytes=0)
    assert seen == [(True, 4), (True, 4)], "for the selection, and before the only slice is deleted"


def test_a_prune_that_fails_deletes_nothing_and_the_next_one_works(db: Database, aged: VectorStore) -> None:
    def broken(_: Connection, _since: float) -> Iterator[bytes]:
        yield keys("t0")[0]
        raise RuntimeError("the job store failed")

    with pytest.raises(RuntimeError, match="the job store failed"):
        Pruner(db, keep=broken).prune(max_bytes=0)
    assert len(left(aged)) == 4
    assert pruner(db).prune(max_bytes=0) == 4, "the keys of the failed prune are forgotten"


def test_a_prune_deletes_in_slices_and_other_writers_go_between(
    db: Database, aged: VectorStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prune_module, "_SLICE", 1)
    looks = []

    def keep(_conn: Connection, since: float) -> list[bytes]:
        looks.append(since)
        return [b"".join(keys("t0", "t1", "t2", "t3"))] if len(looks) > 3 else []  # a job comes after two slices

    assert Pruner(db, keep=keep).prune(max_bytes=0) == 2
    assert len(left(aged)) == 2
    assert looks[0] == 0.0
    assert all(abs(time.time() - since) < 120 for since in looks[1:])
    assert len(looks) == 5, "each slice looks again"
