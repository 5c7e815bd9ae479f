"""Waiting for SQLite's one write lock."""

import sqlite3
import time
from typing import Any

from sqlalchemy import Connection

_FIRST_LOCK_PAUSE_S, _LAST_LOCK_PAUSE_S = 0.0002, 0.005
"""Pauses between attempts to take the write lock; they double from the first to the second."""


def begin_write(conn: Connection, *, timeout_s: float) -> None:
    """Take SQLite's write lock now: a read that becomes a write later fails at once with "database is locked".

    SQLite's own wait sleeps for up to 0.1 s at a time, while a lock is held for a millisecond: with a writer in another
    process, most of that is lost.

    Raises sqlalchemy.exc.OperationalError, also after `timeout_s`.
    """
    run: Any = conn.connection.execute
    deadline, pause_s = time.monotonic() + timeout_s, _FIRST_LOCK_PAUSE_S
    run("PRAGMA busy_timeout=0")
    try:
        while time.monotonic() < deadline:
            try:
                run("BEGIN IMMEDIATE")
                return
            except sqlite3.OperationalError as error:
                if "locked" not in str(error):
                    break
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, _LAST_LOCK_PAUSE_S)
        conn.exec_driver_sql("BEGIN IMMEDIATE")  # once more, so that SQLAlchemy translates the error
    finally:
        run(f"PRAGMA busy_timeout={timeout_s * 1000:.0f}")


def enter_wal(connection: sqlite3.Connection, *, timeout_s: float) -> None:
    """Switch a new file to WAL; the switch ignores the busy timeout, so processes that start together must retry."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
                connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
