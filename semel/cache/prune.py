"""Pruning deletes the oldest vectors, but never one that a job still needs."""

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, column, func, select, table, text

from semel.cache.keys import unpack_keys
from semel.cache.schema import spaces, vectors
from semel.clock import time_of
from semel.db import Database

_SLICE = 2000
"""Vectors that one transaction deletes. Writers wait for some 50 ms."""

_PAUSE_S = 0.02
"""Between two of these transactions, so that those who wait take the lock first."""

_OVERLAP_S = 60.0
"""A transaction that began this long before a prune may become visible to it late."""


@dataclass(frozen=True)
class Plan:
    """The number of vectors that would be deleted, and of those that are kept only because jobs need them."""

    delete: int
    kept: int


class Pruner:
    """Deletes vectors. Thread-safe.

    Args:
        keep: reads the packed keys (32 bytes each, joined) that unexpired jobs still need, of the jobs that changed
            since a time (Unix seconds); 0 for all of them. It is called with the transaction's own connection, after
            the lock, so that a job that is submitted in the meantime is safe.

    Attributes:
        pruned: number of vectors deleted since the start.
    """

    def __init__(self, db: Database, *, keep: Callable[[Connection, float], Iterable[bytes]]) -> None:
        self._db = db
        self._keep = keep
        self._lock = threading.Lock()
        self.pruned = 0

    def count(
        self, *, max_bytes: int | None = None, older_than_s: float | None = None, fingerprint: bytes | None = None
    ) -> int:
        """The number of vectors that `prune` would delete with the same conditions. No writer waits for it."""
        return self.plan(max_bytes=max_bytes, older_than_s=older_than_s, fingerprint=fingerprint).delete

    def plan(
        self, *, max_bytes: int | None = None, older_than_s: float | None = None, fingerprint: bytes | None = None
    ) -> "Plan":
        """What `prune` would do with the same conditions. No writer waits for it."""
        counts = []
        with self._db.read() as conn:
            for needed in (self._keep(conn, 0.0), ()):
                _fill(conn, "prune_keep", needed)
                selected = _to_delete(conn, max_bytes, older_than_s, fingerprint).subquery()
                counts.append(conn.execute(select(func.count()).select_from(selected)).scalar_one())
        return Plan(delete=counts[0], kept=counts[1] - counts[0])

    def prune(
        self, *, max_bytes: int | None = None, older_than_s: float | None = None, fingerprint: bytes | None = None
    ) -> int:
        """Delete vectors, the oldest first, and return their number.

        A vector is deleted only if it meets every condition given. With `fingerprint`, the other two look at that
        space alone. Without any condition, every vector that no job needs is deleted.

        They are selected at the beginning, and deleted in slices; writers do not wait for the whole. Each slice looks
        again at the jobs that are new since then.

        Args:
            max_bytes: delete until the vectors take at most this.
            older_than_s: delete vectors that were computed longer ago than this.
            fingerprint: delete in this space only; without another condition, the whole space.
        """
        deleted = 0
        with self._db.several() as transaction:
            with transaction(write=False) as conn:
                since = time_of(conn) - _OVERLAP_S
                _fill(conn, "prune_keep", self._keep(conn, 0.0))
                count = _fill_doomed(conn, _to_delete(conn, max_bytes, older_than_s, fingerprint))
            for start in range(0, count, _SLICE):
                if start:
                    time.sleep(_PAUSE_S)
                with transaction(write=True) as conn:
                    deleted_now = self._delete(conn, start, since)
                deleted += deleted_now
                with self._lock:
                    self.pruned += deleted_now
            with transaction(write=False) as conn:  # they may be large, and the pool keeps the connection
                for name in ("prune_keep", "prune_doomed", "prune_new"):
                    conn.exec_driver_sql(f"DROP TABLE IF EXISTS {name}")
        return deleted

    def _delete(self, conn: Connection, start: int, since: float) -> int:
        if self._db.dialect == "postgresql":
            conn.exec_driver_sql("LOCK TABLE chunks IN EXCLUSIVE MODE")
        _fill(conn, "prune_new", self._keep(conn, since))
        statement = text(
            "DELETE FROM vectors WHERE key IN (SELECT d.key FROM prune_doomed d WHERE d.place >= :start "
            "AND d.place < :stop AND NOT EXISTS (SELECT 1 FROM prune_new n WHERE n.key = d.key))"
        )
        return conn.execute(statement, {"start": start, "stop": start + _SLICE}).rowcount


def _fill(conn: Connection, name: str, packed_keys: Iterable[bytes]) -> None:
    """Fill a temporary table with keys, so that those of a large job are never in memory all at once."""
    kind = "BYTEA" if conn.dialect.name == "postgresql" else "BLOB"
    conn.exec_driver_sql(f"DROP TABLE IF EXISTS {name}")
    conn.exec_driver_sql(f"CREATE TEMPORARY TABLE {name} (key {kind} PRIMARY KEY)")
    statement = text(f"INSERT INTO {name} (key) VALUES (:key) ON CONFLICT DO NOTHING")
    for packed in packed_keys:
        if rows := [{"key": key} for key in unpack_keys(packed)]:
            conn.execute(statement, rows)


def _fill_doomed(conn: Connection, selected: Any) -> int:
    """Fill a temporary table with the selected keys and their places, from 0; returns their number."""
    kind = "BYTEA" if conn.dialect.name == "postgresql" else "BLOB"
    conn.exec_driver_sql("DROP TABLE IF EXISTS prune_doomed")
    conn.exec_driver_sql(f"CREATE TEMPORARY TABLE prune_doomed (place INTEGER PRIMARY KEY, key {kind} NOT NULL)")
    doomed = table("prune_doomed", column("place"), column("key"))
    keys = selected.subquery()
    numbered = select(func.row_number().over(order_by=keys.c.key) - 1, keys.c.key)
    conn.execute(doomed.insert().from_select(["place", "key"], numbered))
    return conn.execute(select(func.count()).select_from(doomed)).scalar_one()


def _to_delete(conn: Connection, max_bytes: int | None, older_than_s: float | None, fingerprint: bytes | None) -> Any:
    """A SELECT of the keys to delete; it reads the temporary table `prune_keep`."""
    scope: list[Any] = []
    if fingerprint is not None:
        scope.append(vectors.c.space_id.in_(select(spaces.c.id).where(spaces.c.fingerprint == fingerprint)))
    unneeded = text("NOT EXISTS (SELECT 1 FROM prune_keep k WHERE k.key = vectors.key)")
    query = select(vectors.c.key).where(unneeded, *scope)
    if older_than_s is not None:
        query = query.where(vectors.c.created_at < time_of(conn) - older_than_s)
    if max_bytes is None:
        return query
    total = conn.execute(select(func.coalesce(func.sum(func.length(vectors.c.data)), 0)).where(*scope)).scalar_one()
    size = func.length(vectors.c.data)
    before = func.sum(size).over(order_by=(vectors.c.created_at, vectors.c.key)) - size
    ranked = query.add_columns(before.label("before")).subquery()
    return select(ranked.c.key).where(ranked.c.before < total - max_bytes)
