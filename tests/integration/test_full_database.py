"""When the database is full, stored vectors stay readable and bookkeeping still finds room."""

from pathlib import Path

import pytest

from semel.cache.stats import verify
from semel.cache.store import VectorStore
from semel.db import Database
from semel.errors import StorageFullError
from tests.support.values import put, vectors


def fill(store: VectorStore) -> None:
    for i in range(100):
        put(store, [f"{i} {n}" for n in range(50)], vectors(50, 256, seed=i))


def test_a_full_database_refuses_vectors_keeps_the_rest_and_gives_up_its_ballast(tmp_path: Path) -> None:
    db = Database(f"sqlite:///{tmp_path / 'semel.db'}", max_bytes=2 << 20)
    db.upgrade()
    store = VectorStore(db)
    ballast = tmp_path / "semel.db.ballast"
    assert ballast.stat().st_size == 1 << 20
    with pytest.raises(StorageFullError, match="free disk space"):
        fill(store)
    assert not ballast.exists()
    *_, state = verify(db, store)
    assert state.entries > 0
    assert state.entries % 50 == 0  # each call stored all of its vectors or none
    assert state.damaged == []
    with db.write(reserve=True) as conn:
        conn.exec_driver_sql("CREATE TABLE bookkeeping_still_works (x)")
    db.close()
