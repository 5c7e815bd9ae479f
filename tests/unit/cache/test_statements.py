"""Rows that are read and written at once are the same as those that are read and written one by one."""

import zlib
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semel.cache import statements
from semel.cache.keys import input_keys
from semel.cache.statements import COLUMNS, Columns
from semel.cache.store import VectorStore
from semel.db import Database
from tests.support.databases import sqlite_database
from tests.support.values import put, space, vectors

TEXTS = [f"text {i}" for i in range(40)]
KEYS = input_keys(space().fingerprint, TEXTS)

INSERTED = ("key", "space_id", "producer_id", "created_at", *COLUMNS[1:])


@pytest.fixture
def written(store: VectorStore) -> VectorStore:
    put(store, TEXTS, vectors(len(TEXTS)))
    return store


def rows(found: Columns) -> set[Sequence[object]]:
    return set(zip(*found, strict=True))


def change(db: Database, column: str, value: str, key: bytes) -> None:
    with db.write() as conn:
        conn.exec_driver_sql(f"UPDATE vectors SET {column} = {value} WHERE key = ?", (key,))


data = st.binary(min_size=0, max_size=40)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(data, st.integers(0, 9), st.booleans(), st.integers(0, 2**32 - 1)), min_size=1, max_size=30))
def test_rows_with_any_bytes_are_read_as_they_are(given_rows: list[tuple[bytes, int, bool, int]]) -> None:
    new = [(KEYS[i], 1, 1, 0.0, tokens, cut, crc, blob) for i, (blob, tokens, cut, crc) in enumerate(given_rows)]
    with TemporaryDirectory() as folder, sqlite_database(Path(folder)) as db:
        with db.write() as conn:
            assert statements.insert(conn, INSERTED, new) == len(new)
        with db.read() as conn:
            for columns in (1, 3, 5):
                at_once = statements.select(conn, KEYS, columns=columns)
                assert rows(at_once) == rows(statements.select(conn, KEYS, columns=columns, whole=False))
        assert rows(at_once) == {(row[0], *row[4:]) for row in new}


@pytest.mark.parametrize("columns", [1, 3, 5])
def test_keys_without_rows_give_no_columns(db: Database, columns: int) -> None:
    with db.read() as conn:
        assert list(statements.select(conn, KEYS, columns=columns)) == []


def test_an_insert_of_many_rows_counts_the_new_ones(db: Database) -> None:
    keys = input_keys(space().fingerprint, [str(i) for i in range(700)])
    new = [(key, 1, 1, 0.0, 3, False, 0, b"data") for key in keys]
    with db.write() as conn:
        assert statements.insert(conn, INSERTED, new[:300]) == 300
        assert statements.insert(conn, INSERTED, new) == 400
        assert statements.insert(conn, INSERTED, []) == 0


DAMAGE = [
    ("data", "x'00'"), ("data", "'ünïcode, which has fewer characters than bytes'"), ("data", "''"),
    ("crc", "'no number'"), ("crc", "crc + 1"), ("crc", "1.5"),
]  # fmt: skip


@pytest.mark.parametrize(("column", "value"), DAMAGE)
def test_a_damaged_value_is_found_and_harms_no_other_row(
    written: VectorStore, db: Database, column: str, value: str
) -> None:
    change(db, column, value, KEYS[7])
    found = written.get_many(KEYS, dim=4)
    assert found.vectors is not None
    assert np.flatnonzero(~found.present).tolist() == [7]
    others = [i for i in range(len(KEYS)) if i != 7]
    assert (found.vectors[others] == vectors(len(TEXTS))[others]).all()
    assert written.damaged == 1
    assert not written.present([KEYS[7]]), "the damaged row is deleted"
    assert len(written.present(KEYS)) == len(KEYS) - 1


def test_a_look_up_without_vectors_survives_a_damaged_count(written: VectorStore, db: Database) -> None:
    change(db, "tokens", "'three'", KEYS[7])
    with db.read() as conn:
        found = statements.select(conn, KEYS, columns=3)
    assert "three" in found[1]
    assert len(found[0]) == len(KEYS)


def test_a_sqlite_that_joins_only_texts_is_read_row_by_row(
    written: VectorStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statements, "_joins_bytes", lambda: False)
    found = written.get_many(KEYS, dim=4)
    assert found.vectors is not None
    assert zlib.crc32(found.vectors.tobytes()) == zlib.crc32(vectors(len(TEXTS)).tobytes())
