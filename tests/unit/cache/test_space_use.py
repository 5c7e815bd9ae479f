"""Counting look-ups: from many threads, before a space has a row, and when the database fails."""

import threading
import time
from typing import NoReturn

import pytest
from sqlalchemy import select

from semel.cache.schema import spaces
from semel.cache.space_use import SpaceUse, Totals
from semel.cache.store import VectorStore
from semel.db import Database
from semel.errors import UnavailableError
from tests.support.values import space

SPACE, OTHER = space(), space(weights="w2")


@pytest.fixture
def use(db: Database, store: VectorStore) -> SpaceUse:
    """Counts of two spaces that have a row."""
    store.space_id(SPACE)
    store.space_id(OTHER)
    return SpaceUse(db)


def unavailable() -> NoReturn:
    raise UnavailableError("the database does not answer")


def test_an_unused_cache_has_no_look_ups(db: Database) -> None:
    assert SpaceUse(db).totals() == Totals(0, 0, 0.0)


def test_counts_appear_when_they_are_written(use: SpaceUse) -> None:
    use.count(SPACE.fingerprint, lookups=3, hits=2, saved_s=0.5)
    assert use.totals() == Totals(0, 0, 0.0)
    use.write()
    assert use.totals() == Totals(3, 2, 0.5)


def test_every_space_has_its_own_counts(use: SpaceUse, db: Database) -> None:
    use.count(SPACE.fingerprint, lookups=3, hits=2, saved_s=0.5)
    use.count(OTHER.fingerprint, lookups=1, hits=0, saved_s=0.0)
    use.write()
    with db.read() as conn:
        rows = conn.execute(select(spaces.c.fingerprint, spaces.c.lookups, spaces.c.hits)).all()
    assert {tuple(row) for row in rows} == {(SPACE.fingerprint, 3, 2), (OTHER.fingerprint, 1, 0)}
    assert use.totals() == Totals(4, 2, 0.5)


def test_counts_are_written_once(use: SpaceUse, db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    use.count(SPACE.fingerprint, lookups=1, hits=1, saved_s=0.0)
    use.write()
    monkeypatch.setattr(db, "write", unavailable)  # any write would raise
    use.write()
    assert use.totals().lookups == 1


def test_a_space_is_used_when_it_is_looked_up_and_not_when_that_is_written(use: SpaceUse, db: Database) -> None:
    before = time.time()
    use.count(SPACE.fingerprint, lookups=1, hits=0, saved_s=0.0)
    after = time.time()
    use.write()
    with db.read() as conn:
        used_at = {row.fingerprint: row.used_at for row in conn.execute(select(spaces))}
    assert before <= used_at[SPACE.fingerprint] <= after
    assert used_at[OTHER.fingerprint] is None


def test_threads_that_count_at_once_lose_nothing(use: SpaceUse) -> None:
    def count() -> None:
        for _ in range(500):
            use.count(SPACE.fingerprint, lookups=2, hits=1, saved_s=0.25)

    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(5)
    use.write()
    assert use.totals() == Totals(8000, 4000, 1000.0)


def test_counts_of_a_failed_write_are_added_to_newer_ones(
    use: SpaceUse, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    use.count(SPACE.fingerprint, lookups=3, hits=1, saved_s=0.5)
    with monkeypatch.context() as patched:

        def count_and_fail() -> NoReturn:
            use.count(SPACE.fingerprint, lookups=10, hits=5, saved_s=1.0)  # another thread, during the write
            unavailable()

        patched.setattr(db, "write", count_and_fail)
        with pytest.raises(UnavailableError):
            use.write()
    use.write()
    assert use.totals() == Totals(13, 6, 1.5)


def test_a_space_without_a_row_does_not_hold_up_the_others(use: SpaceUse, store: VectorStore) -> None:
    new = space(weights="w3")
    use.count(new.fingerprint, lookups=5, hits=0, saved_s=0.0)
    use.count(SPACE.fingerprint, lookups=1, hits=1, saved_s=0.0)
    use.write()
    assert use.totals() == Totals(1, 1, 0.0)
    store.space_id(new)
    use.write()
    assert use.totals() == Totals(6, 1, 0.0)
