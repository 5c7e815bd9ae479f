"""The use of a space is counted, added up over processes, and never lost."""

import time

import pytest
from sqlalchemy.exc import SQLAlchemyError

from semel.cache.prune import Pruner
from semel.cache.space_use import SpaceUse, Totals
from semel.cache.stats import CacheStats
from semel.cache.store import VectorStore
from semel.db import Database
from semel.errors import UnavailableError
from tests.support.values import put, space, vectors

SPACE = space()


def test_the_counts_of_two_processes_are_added_up(store: VectorStore, db: Database) -> None:
    put(store, ["a"], vectors(1))
    assert CacheStats(db).by_space()[0].used_at is None
    before = time.time()
    for _ in range(2):
        use = SpaceUse(db)
        use.count(SPACE.fingerprint, lookups=10, hits=4, saved_s=0.5)
        use.count(SPACE.fingerprint, lookups=1, hits=1, saved_s=0.25)
        use.write()
    (stats,) = CacheStats(db).by_space()
    assert (stats.lookups, stats.hits, stats.saved_s) == (22, 10, 1.5)
    assert stats.used_at is not None
    assert stats.used_at >= before
    assert SpaceUse(db).totals() == Totals(22, 10, 1.5)


def test_a_space_without_a_row_is_counted_until_it_has_one(store: VectorStore, db: Database) -> None:
    use = SpaceUse(db)
    use.count(SPACE.fingerprint, lookups=3, hits=0, saved_s=0)
    use.write()
    put(store, ["a"], vectors(1))
    use.count(SPACE.fingerprint, lookups=2, hits=2, saved_s=0)
    use.write()
    use.write()  # nothing is left to add
    (stats,) = CacheStats(db).by_space()
    assert (stats.lookups, stats.hits) == (5, 2)


def test_counts_that_could_not_be_written_are_written_later(
    store: VectorStore, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, ["a"], vectors(1))
    use = SpaceUse(db)
    use.count(SPACE.fingerprint, lookups=3, hits=1, saved_s=0)
    with monkeypatch.context() as patched:
        patched.setattr(db, "write", _unavailable)
        with pytest.raises((UnavailableError, SQLAlchemyError)):
            use.write()
    use.write()
    assert CacheStats(db).by_space()[0].lookups == 3


def _unavailable() -> None:
    raise UnavailableError("the database does not answer")


def test_growth_counts_vectors_by_the_time_they_were_stored(db: Database, store: VectorStore) -> None:
    put(store, ["a", "b"], vectors(2))
    other = space(weights="w2")
    put(store, ["c"], vectors(1), into=other)
    grown = CacheStats(db).growth(span_s=3600)
    assert sum(part.entries for part in grown) == 3
    assert {part.fingerprint for part in grown} == {SPACE.fingerprint.hex(), other.fingerprint.hex()}
    now = time.time()
    assert all(now - 3600 * 2 < part.at <= now for part in grown)
    assert all(part.at % 3600 == 0 for part in grown)


def test_pruned_vectors_are_counted(db: Database, store: VectorStore) -> None:
    put(store, ["a", "b"], vectors(2))
    pruner = Pruner(db, keep=lambda *_: [])
    assert pruner.count(max_bytes=0) == 2
    assert pruner.pruned == 0
    assert pruner.prune(max_bytes=0) == 2
    assert pruner.pruned == 2
