"""Writes to SQLite that share a transaction: a transaction costs as much as writing a few hundred vectors."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from semel.db import Database

Write: TypeAlias = Callable[[Any], int]
"""Writes rows inside a transaction, and returns how many."""


@dataclass(eq=False)
class _Waiting:
    """One caller's write; `count` or `error` is its result once the transaction has ended."""

    write: Write
    count: int | None = None
    error: BaseException | None = None


class JointWrites:
    """Callers that come while a transaction runs share the next one. Thread-safe.

    Args:
        db: on SQLite, which allows one writer at a time. Several transactions of PostgreSQL run at once, and locks are
            taken in one order only within the writes of one caller.
    """

    def __init__(self, db: Database) -> None:
        self._db = db
        self._waiting: list[_Waiting] = []
        self._changing = threading.Lock()
        self._writing = threading.Lock()

    def run(self, write: Write) -> int:
        """Run a write in a transaction, perhaps one that others share; return its result after the commit.

        Args:
            write: receives the connection. If it fails, so do all that share the transaction: check rows before.

        Raises:
            StorageFullError, UnavailableError: as `Database.write`; nothing of this call is stored.
        """
        if self._db.dialect == "postgresql":
            with self._db.write() as conn:
                return write(conn)
        mine = _Waiting(write)
        with self._changing:
            self._waiting.append(mine)
        with self._writing:
            if mine.count is None and mine.error is None:  # no transaction has taken it along yet
                self._write_all()
        if mine.error is not None:
            raise mine.error
        assert mine.count is not None  # set with the transaction's end
        return mine.count

    def _write_all(self) -> None:
        """Write for everybody who waits by now."""
        with self._changing:
            taken, self._waiting = self._waiting, []
        try:
            with self._db.write() as conn:
                counts = self._counts(conn, taken)
        except BaseException as error:  # noqa: BLE001  # each of the callers raises it
            for each in taken:
                each.error = error
            return
        for each, count in zip(taken, counts, strict=True):
            each.count = count

    @staticmethod
    def _counts(conn: Any, taken: Sequence[_Waiting]) -> list[int]:
        return [each.write(conn) for each in taken]
