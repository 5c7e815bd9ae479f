"""What a vector store promises, on SQLite and on PostgreSQL."""

import time

import numpy as np
import pytest
from sqlalchemy import update

from semel.cache.keys import input_keys
from semel.cache.prune import Pruner
from semel.cache.schema import vectors as vectors_table
from semel.cache.stats import CacheStats, verify
from semel.cache.store import VectorStore
from semel.db import Database
from semel.errors import InvalidVectorError
from tests.support.values import put, space, vectors

SPACE = space()


def keys(*texts: str) -> list[bytes]:
    return input_keys(SPACE.fingerprint, texts)


def test_stored_vectors_come_back_bit_for_bit(store: VectorStore) -> None:
    rows = vectors(3)
    assert put(store, ["a", "b", "c"], rows) == 3
    found = store.get_many(keys("a", "b", "c"), dim=4)
    assert found.all_present
    assert (found.vectors == rows).all()
    assert found.tokens.tolist() == [3, 3, 3]


def test_rows_are_in_the_order_of_the_keys(store: VectorStore) -> None:
    rows = vectors(2)
    put(store, ["a", "b"], rows)
    found = store.get_many(keys("x", "b", "a", "y", "b"), dim=4)
    assert found.present.tolist() == [False, True, True, False, True]
    assert found.vectors is not None
    assert (found.vectors[[1, 2, 4]] == rows[[1, 0, 1]]).all()
    assert np.isnan(found.vectors[[0, 3]]).all()


def test_more_keys_than_one_statement_takes_are_read(store: VectorStore) -> None:
    texts = [str(i) for i in range(3000)]
    rows = vectors(3000)
    put(store, texts, rows)
    found = store.get_many(keys(*reversed(texts)), dim=4)
    assert found.vectors is not None
    assert (found.vectors == rows[::-1]).all()


def test_no_keys_give_an_empty_result(store: VectorStore) -> None:
    found = store.get_many([], dim=4)
    assert found.all_present
    assert found.vectors is not None
    assert found.vectors.shape == (0, 4)


def test_the_first_vector_of_a_key_stays(store: VectorStore) -> None:
    first, second = vectors(1), vectors(1, seed=1)
    assert put(store, ["a"], first) == 1
    assert put(store, ["a"], second) == 0
    assert (store.get_many(keys("a"), dim=4).vectors == first).all()


def test_look_up_without_vectors(store: VectorStore) -> None:
    put(store, ["a"], vectors(1))
    assert store.lookup(keys("a", "b")).present.tolist() == [True, False]
    assert store.present(keys("a", "b")) == set(keys("a"))


def test_one_bad_vector_keeps_its_whole_call_from_being_stored(store: VectorStore) -> None:
    rows = vectors(3)
    rows[1] = np.nan
    with pytest.raises(InvalidVectorError, match="vector 1 of 3"):
        put(store, ["a", "b", "c"], rows)
    assert not store.present(keys("a", "b", "c"))


def test_float16_halves_the_bytes_and_mixes_with_float32(db: Database) -> None:
    rows = vectors(2)
    put(VectorStore(db), ["a"], rows[:1])
    put(VectorStore(db, dtype="float16"), ["b"], rows[1:])
    found = VectorStore(db).get_many(keys("a", "b"), dim=4)
    assert found.vectors is not None
    np.testing.assert_allclose(found.vectors, rows, rtol=1e-3)
    assert CacheStats(db).by_space()[0].bytes == 16 + 8


def damage(db: Database, text: str, data: bytes) -> None:
    with db.write() as conn:
        conn.execute(update(vectors_table).where(vectors_table.c.key == keys(text)[0]).values(data=data))


@pytest.mark.parametrize("data", [b"\0" * 16, b"\0" * 7, b""], ids=["other bytes", "half a row", "empty"])
def test_a_damaged_row_is_a_miss_and_can_be_stored_again(db: Database, data: bytes) -> None:
    store, rows = VectorStore(db), vectors(2)
    put(store, ["a", "b"], rows)
    damage(db, "a", data)
    found = store.get_many(keys("a", "b"), dim=4)
    assert found.present.tolist() == [False, True]
    assert put(store, ["a"], rows[:1]) == 1
    assert (store.get_many(keys("a", "b"), dim=4).vectors == rows).all()


def test_rows_swapped_in_the_database_are_found(db: Database) -> None:
    store, rows = VectorStore(db), vectors(2)
    put(store, ["a", "b"], rows)
    damage(db, "a", rows[1].tobytes())  # valid bytes, but of another key
    assert store.get_many(keys("a"), dim=4).present.tolist() == [False]


def test_verify_names_the_damaged_rows_and_repairs_on_request(db: Database) -> None:
    store = VectorStore(db)
    put(store, ["a", "b", "c"], vectors(3))
    damage(db, "b", b"\0" * 16)
    *_, state = verify(db, store)
    assert (state.entries, state.damaged) == (3, keys("b"))
    *_, state = verify(db, store, repair=True)
    assert state.damaged == keys("b")
    *_, state = verify(db, store)
    assert (state.entries, state.damaged) == (2, [])


def test_stats_count_by_space(db: Database, store: VectorStore) -> None:
    other = space(weights="w2")
    put(store, ["a", "b"], vectors(2))
    put(store, ["a"], vectors(1), into=other)
    assert [(s.fingerprint, s.entries, s.bytes) for s in CacheStats(db).by_space()] == [
        (SPACE.fingerprint.hex(), 2, 32),
        (other.fingerprint.hex(), 1, 16),
    ]


def pruner(db: Database, *needed: bytes) -> Pruner:
    return Pruner(db, keep=lambda *_: needed)


def test_prune_by_bytes_deletes_the_oldest(db: Database, store: VectorStore) -> None:
    for text in ("old", "middle", "new"):
        put(store, [text], vectors(1))
        time.sleep(0.01)
    assert pruner(db).count(max_bytes=32) == 1
    assert pruner(db).prune(max_bytes=32) == 1
    assert store.present(keys("old", "middle", "new")) == set(keys("middle", "new"))


def test_prune_by_age(db: Database, store: VectorStore) -> None:
    put(store, ["old"], vectors(1))
    between = time.time() + 0.5
    time.sleep(1)
    put(store, ["new"], vectors(1))
    assert pruner(db).prune(older_than_s=time.time() - between) == 1
    assert store.present(keys("old", "new")) == set(keys("new"))


def test_prune_by_fingerprint(db: Database, store: VectorStore) -> None:
    other = space(weights="w2")
    put(store, ["a"], vectors(1))
    put(store, ["a"], vectors(1), into=other)
    assert pruner(db).prune(fingerprint=other.fingerprint) == 1
    assert [s.fingerprint for s in CacheStats(db).by_space()] == [SPACE.fingerprint.hex()]


def test_prune_spares_needed_keys(db: Database, store: VectorStore) -> None:
    put(store, ["a", "b", "c"], vectors(3))
    assert pruner(db, b"".join(keys("a", "c"))).prune(max_bytes=0) == 1
    assert store.present(keys("a", "b", "c")) == set(keys("a", "c"))
