"""A database without room: what is stored stays readable, and bookkeeping still finds some."""

from pathlib import Path

import pytest

from semel.cache.store import VectorStore
from semel.db import Database
from semel.errors import StorageFullError
from tests.support.values import put, vectors


def test_a_full_database_refuses_vectors_keeps_the_rest_and_gives_up_its_ballast(tmp_path: Path) -> None:
    db = Database(f"sqlite:///{tmp_path / 'semel.db'}", max_bytes=2 << 20)
    db.upgrade()
    store = VectorStore(db)
    ballast = tmp_path / "semel.db.ballast"
    assert ballast.stat().st_size == 1 << 20
    stored = 0
    with pytest.raises(StorageFullError, match="free disk space"):
        for i in range(100):
            stored += put(store, [f"{i} {n}" for n in range(50)], vectors(50, 256, seed=i))
    assert not ballast.exists()
    assert stored > 0
    *_, state = store.verify()
    assert (state.entries, state.damaged) == (stored, [])
    with db.write(reserve=True) as conn:
        conn.exec_driver_sql("CREATE TABLE bookkeeping_still_works (x)")
    db.close()
