"""The vector store: repeated keys, rows that are already encoded, scores, damage and a full database."""

import zlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import select, update

from semel.cache import store as store_module
from semel.cache.codec import checksum
from semel.cache.keys import input_keys
from semel.cache.schema import producers
from semel.cache.schema import vectors as vectors_table
from semel.cache.store import StoredRow, VectorStore, is_sound
from semel.db import Database
from semel.errors import InvalidVectorError, StorageFullError
from semel.values.model import Producer, Space
from tests.support.databases import sqlite_database
from tests.support.values import PRODUCER, put, space, vectors

SPACE = space()


def keys(*texts: str) -> list[bytes]:
    return input_keys(SPACE.fingerprint, texts)


def encoded(text: str, row: Sequence[float]) -> StoredRow:
    """A row as an export has it."""
    key, data = keys(text)[0], np.array(row, "<f4").tobytes()
    return key, 3, False, checksum(key, data), data


# Reading


def test_a_repeated_key_gets_its_vector_in_every_place(store: VectorStore) -> None:
    rows = vectors(2)
    put(store, ["a", "b"], rows)
    found = store.get_many(keys("b", "x", "b", "a", "x"), dim=4)
    assert found.present.tolist() == [True, False, True, True, False]
    assert found.vectors is not None
    assert (found.vectors[[0, 2, 3]] == rows[[1, 1, 0]]).all()
    assert np.isnan(found.vectors[[1, 4]]).all()


@pytest.mark.parametrize("size", [1, 2, 3])
def test_the_answer_does_not_depend_on_the_size_of_a_slice(
    store: VectorStore, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    rows = vectors(5)
    put(store, list("abcde"), rows)
    monkeypatch.setattr(store_module, "SLICE_KEYS", size)
    found = store.get_many(keys(*"eaxcbda"), dim=4)
    assert found.present.tolist() == [True, True, False, True, True, True, True]
    assert found.vectors is not None
    assert (found.vectors[[0, 1, 3, 4, 5, 6]] == rows[[4, 0, 2, 1, 3, 0]]).all()
    assert store.present(keys(*"xay")) == set(keys("a"))


def test_tokens_and_truncation_come_back_with_their_keys(store: VectorStore) -> None:
    store.put_many(SPACE, keys("a", "b"), vectors(2), tokens=[7, 256], truncated=[False, True], producer=PRODUCER)
    for found in (store.lookup(keys("b", "b", "a")), store.get_many(keys("b", "b", "a"), dim=4)):
        assert found.tokens.tolist() == [256, 256, 7]
        assert found.truncated.tolist() == [True, True, False]
    assert store.lookup(keys("a")).vectors is None


def test_a_look_up_does_not_read_the_vectors(store: VectorStore, db: Database) -> None:
    put(store, ["a"], vectors(1))
    damage(db, "a", b"")
    assert store.lookup(keys("a")).present.tolist() == [True]
    assert store.damaged == 0


def test_a_look_up_inside_a_transaction_sees_what_the_transaction_has_written(store: VectorStore, db: Database) -> None:
    put(store, ["a"], vectors(1))
    with db.write() as conn:
        conn.execute(vectors_table.delete())
        assert store.lookup_on(conn, keys("a")).present.tolist() == [False]
        assert store.lookup(keys("a")).present.tolist() == [True], "another transaction does not see it yet"


# Writing


def test_a_key_that_is_stored_twice_in_one_call_has_its_first_vector(store: VectorStore) -> None:
    rows = vectors(3)
    rows[1] = rows[0]
    assert put(store, ["a", "a", "b"], rows) == 2
    found = store.get_many(keys("a", "b"), dim=4)
    assert found.vectors is not None
    assert (found.vectors == rows[[0, 2]]).all()


def test_only_new_rows_are_counted(store: VectorStore) -> None:
    assert put(store, ["a"], vectors(1)) == 1
    assert put(store, ["a", "b", "c"], vectors(3)) == 2


def test_nothing_is_stored_when_a_list_is_too_short(store: VectorStore) -> None:
    with pytest.raises(ValueError, match="shorter"):
        store.put_many(SPACE, keys("a", "b"), vectors(2), tokens=[1], truncated=[False, False], producer=PRODUCER)
    assert store.present(keys("a", "b")) == set()


def test_every_device_that_made_vectors_is_recorded_once(store: VectorStore, db: Database) -> None:
    made = [Producer("cpu", "torch", "float32"), Producer("cuda:0", "torch", "float16")]
    for i, producer in enumerate([*made, *made]):
        store.put_many(SPACE, keys(f"t{i}"), vectors(1), tokens=[1], truncated=[False], producer=producer)
    with db.read() as conn:
        rows = conn.execute(select(producers)).all()
        used = conn.execute(select(vectors_table.c.producer_id).distinct()).scalars().all()
    assert [Producer(row.device, row.backend, row.dtype) for row in rows] == made
    assert sorted(used) == [row.id for row in rows]


def test_two_stores_give_a_space_the_same_id(store: VectorStore, db: Database) -> None:
    assert VectorStore(db).space_id(SPACE) == store.space_id(SPACE)
    assert store.space_id(space(weights="w2")) != store.space_id(SPACE)


def test_scores_stay_float32_where_vectors_are_float16(db: Database) -> None:
    store, score, into = (
        VectorStore(db, dtype="float16"),
        np.array([[0.1234567]], np.float32),
        space(1, kind="cross-encoder"),
    )
    put(store, ["pair"], score, into=into)
    found = store.get_many(input_keys(into.fingerprint, ["pair"]), dim=1)
    assert found.vectors is not None
    assert (found.vectors == score).all()


def test_a_score_of_zero_is_stored(store: VectorStore) -> None:
    put(store, ["pair"], np.zeros((1, 1), np.float32))
    assert store.get_many(input_keys(space(1).fingerprint, ["pair"]), dim=1).all_present


def test_rows_that_are_encoded_already_are_stored_as_they_are(store: VectorStore) -> None:
    assert store.put_rows(SPACE, [encoded("a", [1, 2, 3, 4]), encoded("b", [5, 6, 7, 8])], producer=PRODUCER) == 2
    found = store.get_many(keys("b", "a"), dim=4)
    assert found.vectors is not None
    assert found.vectors.tolist() == [[5, 6, 7, 8], [1, 2, 3, 4]]


def test_one_damaged_row_keeps_the_others_of_its_call_from_being_stored(store: VectorStore) -> None:
    key, tokens, truncated, crc, data = encoded("b", [5, 6, 7, 8])
    with pytest.raises(InvalidVectorError, match=f"key {key.hex()} is damaged; it is not stored"):
        store.put_rows(SPACE, [encoded("a", [1, 2, 3, 4]), (key, tokens, truncated, crc + 1, data)], producer=PRODUCER)
    assert store.present(keys("a", "b")) == set()


# Damage


def damage(db: Database, text: str, data: bytes) -> None:
    with db.write() as conn:
        conn.execute(update(vectors_table).where(vectors_table.c.key == keys(text)[0]).values(data=data))


def test_damaged_rows_are_counted_and_deleted(store: VectorStore, db: Database) -> None:
    put(store, ["a", "b", "c"], vectors(3))
    damage(db, "a", b"\1" * 16)
    damage(db, "b", b"\1" * 3)
    assert store.get_many(keys("a", "b", "c"), dim=4).present.tolist() == [False, False, True]
    assert store.damaged == 2
    assert store.present(keys("a", "b", "c")) == set(keys("c"))


def test_a_row_that_was_stored_again_is_not_deleted(store: VectorStore, db: Database) -> None:
    put(store, ["a"], vectors(1))
    with db.read() as conn:
        columns = [vectors_table.c[name] for name in ("key", "tokens", "truncated", "crc", "data")]
        old = tuple(conn.execute(select(*columns)).one())
    with db.write() as conn:
        conn.execute(vectors_table.delete())
    put(store, ["a"], vectors(1, seed=1))
    store.drop([old])  # type: ignore[list-item]
    assert store.present(keys("a")) == set(keys("a"))


@pytest.mark.parametrize(
    ("row", "sound"),
    [
        ([1, 2, 3, 4], True),
        ([0, 0, 0, 0], False),
        ([1, float("nan"), 3, 4], False),
        ([1, 2, 3, float("inf")], False),
        ([1, 2, 3], False),
    ],
)
def test_a_row_is_sound_if_its_values_can_be_a_vector(row: list[float], sound: bool) -> None:
    assert is_sound(encoded("a", row), 4) is sound


def test_a_row_with_the_checksum_of_its_data_alone_is_damaged() -> None:
    key, tokens, truncated, _, data = encoded("a", [1, 2, 3, 4])
    assert not is_sound((key, tokens, truncated, zlib.crc32(data), data), 4)


# A full database


def test_a_full_database_stores_nothing_of_the_call_and_still_reads(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    with sqlite_database(tmp_path / "full"):
        pass
    file = tmp_path / "full" / "semel.db"
    db = Database(f"sqlite:///{file}", max_bytes=file.stat().st_size + 300_000)
    store, wide = VectorStore(db), space(1024)
    kept = 0
    with suppress(StorageFullError):
        for kept in range(100):
            put(store, [f"{kept} {i}" for i in range(16)], vectors(16, 1024))
    assert 0 < kept < 99, "the database became full"
    assert store.present(of(wide, kept)) == set()
    assert store.get_many(of(wide, kept - 1), dim=1024).all_present
    db.close()


def of(wide: Space, call: int) -> list[bytes]:
    return input_keys(wide.fingerprint, [f"{call} {i}" for i in range(16)])
