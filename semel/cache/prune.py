"""Pruning deletes the oldest vectors, but never one that a job still needs."""

import threading
from collections.abc import Callable, Iterable
from typing import Any

from sqlalchemy import Connection, delete, func, select, text

from semel.cache.keys import unpack_keys
from semel.cache.schema import spaces, vectors
from semel.clock import time_of
from semel.db import Database


class Pruner:
    """Deletes vectors. Thread-safe.

    Args:
        keep: reads the packed keys (32 bytes each, joined) that unexpired jobs still need. It is called with the
            transaction's own connection, after the lock, so that a job that is submitted in the meantime is safe.

    Attributes:
        pruned: number of vectors deleted since the start.
    """

    def __init__(self, db: Database, *, keep: Callable[[Connection], Iterable[bytes]]) -> None:
        self._db = db
        self._keep = keep
        self._lock = threading.Lock()
        self.pruned = 0

    def count(
        self, *, max_bytes: int | None = None, older_than_s: float | None = None, fingerprint: bytes | None = None
    ) -> int:
        """The number of vectors that `prune` would delete with the same conditions. No writer waits for it."""
        with self._db.read() as conn:
            _fill_keep_table(conn, self._keep(conn))
            selected = _to_delete(conn, max_bytes, older_than_s, fingerprint)
            return conn.execute(select(func.count()).select_from(selected.subquery())).scalar_one()

    def prune(
        self, *, max_bytes: int | None = None, older_than_s: float | None = None, fingerprint: bytes | None = None
    ) -> int:
        """Delete vectors, the oldest first, and return their number.

        A vector is deleted only if it meets every condition given. With `fingerprint`, the other two look at that
        space alone. Without any condition, every vector that no job needs is deleted.

        Args:
            max_bytes: delete until the vectors take at most this.
            older_than_s: delete vectors that were computed longer ago than this.
            fingerprint: delete in this space only; without another condition, the whole space.
        """
        with self._db.write(reserve=True, unlimited=True) as conn:
            if self._db.dialect == "postgresql":
                conn.exec_driver_sql("LOCK TABLE chunks IN EXCLUSIVE MODE")
            _fill_keep_table(conn, self._keep(conn))
            selected = _to_delete(conn, max_bytes, older_than_s, fingerprint)
            deleted = conn.execute(delete(vectors).where(vectors.c.key.in_(selected))).rowcount
            conn.exec_driver_sql("DROP TABLE prune_keep")  # it may be large, and the pool keeps the connection
        with self._lock:
            self.pruned += deleted
        return deleted


def _fill_keep_table(conn: Connection, keep: Iterable[bytes]) -> None:
    """Fill a temporary table with the keys to keep, so that those of a large job are never in memory all at once."""
    kind = "BYTEA" if conn.dialect.name == "postgresql" else "BLOB"
    conn.exec_driver_sql("DROP TABLE IF EXISTS prune_keep")
    conn.exec_driver_sql(f"CREATE TEMPORARY TABLE prune_keep (key {kind} PRIMARY KEY)")
    statement = text("INSERT INTO prune_keep (key) VALUES (:key) ON CONFLICT DO NOTHING")
    for packed in keep:
        if rows := [{"key": key} for key in unpack_keys(packed)]:
            conn.execute(statement, rows)


def _to_delete(conn: Connection, max_bytes: int | None, older_than_s: float | None, fingerprint: bytes | None) -> Any:
    """A SELECT of the keys to delete; it reads the temporary table that `_fill_keep_table` made."""
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
