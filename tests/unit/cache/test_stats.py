"""Statistics by space, growth over time, and the check of every row."""

import time

import numpy as np
import pytest
from sqlalchemy import delete, select, update

from semel.cache import stats as stats_module
from semel.cache.codec import checksum
from semel.cache.keys import input_keys
from semel.cache.schema import spaces
from semel.cache.schema import vectors as vectors_table
from semel.cache.stats import CacheStats, Growth, verify
from semel.cache.store import VectorStore
from semel.db import Database
from semel.values.vectors import Vectors
from tests.support.values import put, space, vectors

SPACE, OTHER = space(), space(weights="w2")


@pytest.fixture
def stats(db: Database) -> CacheStats:
    return CacheStats(db)


def key(text: str) -> bytes:
    return input_keys(SPACE.fingerprint, [text])[0]


def change(db: Database, text: str, **values: object) -> None:
    """Change the row of a text."""
    with db.write() as conn:
        conn.execute(update(vectors_table).where(vectors_table.c.key == key(text)).values(values))


# Counts


def test_an_empty_cache_has_no_spaces(stats: CacheStats) -> None:
    assert stats.by_space() == []
    assert stats.growth(span_s=60) == []
    assert not stats.has_space(SPACE.fingerprint.hex())


def test_the_space_with_the_most_bytes_comes_first(store: VectorStore, stats: CacheStats) -> None:
    small, large = space(), space(64, weights="w2")
    put(store, ["a", "b", "c"], vectors(3), into=small)
    put(store, ["a"], vectors(1, 64), into=large)
    assert [(s.weights, s.entries, s.bytes) for s in stats.by_space()] == [("w2", 1, 256), ("w1", 3, 48)]


def test_statistics_describe_the_space_and_its_oldest_and_newest_vector(
    store: VectorStore, stats: CacheStats, db: Database
) -> None:
    put(store, ["old", "new"], vectors(2))
    change(db, "old", created_at=1000.0)
    change(db, "new", created_at=2000.0)
    (found,) = stats.by_space()
    assert (found.fingerprint, found.model, found.prompt_name) == (SPACE.fingerprint.hex(), "m", "")
    assert (found.dim, found.precision, found.weights) == (4, "full", "w1")
    assert (found.oldest_at, found.newest_at) == (1000.0, 2000.0)
    assert (found.lookups, found.hits, found.saved_s, found.used_at) == (0, 0, 0.0, None)


def test_a_space_without_vectors_is_known_but_not_listed(store: VectorStore, stats: CacheStats) -> None:
    store.space_id(SPACE)
    assert stats.by_space() == []
    assert stats.has_space(SPACE.fingerprint.hex())
    assert not stats.has_space(OTHER.fingerprint.hex())


def test_a_space_is_found_by_its_fingerprint(store: VectorStore, stats: CacheStats) -> None:
    store.space_id(OTHER)
    store.space_id(SPACE)
    assert stats.space_of(SPACE.fingerprint) == SPACE


def test_growth_counts_each_span_and_leaves_out_empty_ones(store: VectorStore, stats: CacheStats, db: Database) -> None:
    put(store, ["a", "b", "c", "d"], vectors(4))
    for text, created_at in (("a", 61.0), ("b", 119.9), ("c", 121.0), ("d", 299.0)):
        change(db, text, created_at=created_at)
    hex_digits = SPACE.fingerprint.hex()
    assert stats.growth(span_s=60) == [
        Growth(hex_digits, 60.0, 2),
        Growth(hex_digits, 120.0, 1),
        Growth(hex_digits, 240.0, 1),
    ]


def test_growth_is_counted_for_each_space(store: VectorStore, stats: CacheStats) -> None:
    put(store, ["a"], vectors(1))
    put(store, ["a", "b"], vectors(2), into=OTHER)
    grown = stats.growth(span_s=3600)
    assert {(part.fingerprint, part.entries) for part in grown} == {
        (SPACE.fingerprint.hex(), 1),
        (OTHER.fingerprint.hex(), 2),
    }
    assert all(part.at <= time.time() < part.at + 7200 for part in grown)


# The check of every row


def test_a_sound_cache_has_no_damage(store: VectorStore, db: Database) -> None:
    put(store, ["a", "b"], vectors(2))
    put(store, ["pair"], np.zeros((1, 1), np.float32), into=space(1, kind="cross-encoder"))
    *_, state = verify(db, store)
    assert (state.entries, state.damaged) == (3, [])


def test_an_empty_cache_is_sound(store: VectorStore, db: Database) -> None:
    assert [(state.entries, state.damaged) for state in verify(db, store)] == [(0, [])]


def test_the_check_reports_its_state_after_each_slice(
    store: VectorStore, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, [f"t{i}" for i in range(10)], vectors(10))
    monkeypatch.setattr(stats_module, "SLICE_KEYS", 1)  # four rows in a slice
    assert [state.entries for state in verify(db, store)] == [4, 8, 10, 10]


def not_finite() -> Vectors:
    return np.array([[1, np.nan, 3, 4]], np.float32)


@pytest.mark.parametrize("row", [np.zeros((1, 4), np.float32), not_finite()], ids=["zero", "not finite"])
def test_values_that_no_model_returns_are_damage_even_with_a_right_checksum(
    store: VectorStore, db: Database, row: Vectors
) -> None:
    put(store, ["a"], vectors(1))
    change(db, "a", data=row.tobytes(), crc=checksum(key("a"), row.tobytes()))
    *_, state = verify(db, store)
    assert state.damaged == [key("a")]


def test_a_row_of_an_unknown_space_is_damage(store: VectorStore, db: Database) -> None:
    put(store, ["a"], vectors(1))
    with db.write() as conn:
        conn.execute(delete(spaces))
    *_, state = verify(db, store)
    assert state.damaged == [key("a")]


def test_damage_is_counted_and_kept_unless_it_is_to_be_repaired(store: VectorStore, db: Database) -> None:
    put(store, ["a", "b"], vectors(2))
    change(db, "a", data=b"\1" * 16)
    list(verify(db, store))
    assert store.damaged == 1
    assert store.present([key("a"), key("b")]) == {key("a"), key("b")}


def test_a_repair_deletes_damaged_rows_in_every_slice(
    store: VectorStore, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [f"t{i}" for i in range(10)]
    put(store, texts, vectors(10))
    for text in texts[::2]:
        change(db, text, data=b"")
    monkeypatch.setattr(stats_module, "SLICE_KEYS", 1)
    *_, state = verify(db, store, repair=True)
    assert (state.entries, len(state.damaged)) == (10, 5)
    with db.read() as conn:
        assert set(conn.execute(select(vectors_table.c.key)).scalars()) == {key(text) for text in texts[1::2]}
