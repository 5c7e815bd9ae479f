"""How much the vector spaces are used: counted in memory and added to their rows from time to time."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import func, select, update

from semel.cache.schema import spaces
from semel.db import Database


@dataclass(frozen=True)
class Totals:
    """Look-ups, the hits among them, and the device time in seconds that the hits saved."""

    lookups: int
    hits: int
    saved_s: float


@dataclass
class _Counted:
    lookups: int = 0
    hits: int = 0
    saved_s: float = 0.0
    used_at: float = 0.0

    def add(self, *, lookups: int, hits: int, saved_s: float) -> None:
        self.lookups += lookups
        self.hits += hits
        self.saved_s += saved_s


class SpaceUse:
    """Counts look-ups by space. Thread-safe; several processes add to the same rows."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._counted: dict[bytes, _Counted] = {}
        self._lock = threading.Lock()

    def count(self, fingerprint: bytes, *, lookups: int, hits: int, saved_s: float) -> None:
        """Count look-ups in a space.

        Args:
            lookups: texts that were looked up.
            hits: the look-ups that found a vector.
            saved_s: device time that the hits would have cost.
        """
        with self._lock:
            counted = self._counted.setdefault(fingerprint, _Counted())
            counted.add(lookups=lookups, hits=hits, saved_s=saved_s)
            counted.used_at = self._db.now()

    def totals(self) -> Totals:
        """The totals of all spaces and processes, as far as they have been written."""
        columns = (spaces.c.lookups, spaces.c.hits, spaces.c.saved_s)
        query = select(*(func.coalesce(func.sum(column), 0).label(column.name) for column in columns))
        with self._db.read() as conn:
            row = conn.execute(query).one()
        return Totals(int(row.lookups), int(row.hits), float(row.saved_s))

    def write(self) -> None:
        """Add the counts to the rows of their spaces.

        Counts stay in memory for the next call if the write fails, or if their space has no vector, and so no row, yet.
        """
        with self._lock:
            counted, self._counted = self._counted, {}
        if not counted:
            return
        written: set[bytes] = set()
        try:
            written = self._add(counted)
        finally:
            self._keep({f: use for f, use in counted.items() if f not in written})

    def _keep(self, unwritten: Mapping[bytes, _Counted]) -> None:
        with self._lock:
            for fingerprint, use in unwritten.items():
                newer = self._counted.setdefault(fingerprint, use)
                if newer is not use:
                    newer.add(lookups=use.lookups, hits=use.hits, saved_s=use.saved_s)

    def _add(self, counted: Mapping[bytes, _Counted]) -> set[bytes]:
        written = set()
        with self._db.write() as conn:
            for fingerprint, use in sorted(counted.items()):  # one order in every process: no deadlock on PostgreSQL
                added = {
                    "lookups": spaces.c.lookups + use.lookups,
                    "hits": spaces.c.hits + use.hits,
                    "saved_s": spaces.c.saved_s + use.saved_s,
                    "used_at": use.used_at,
                }
                here = update(spaces).where(spaces.c.fingerprint == fingerprint).values(added)
                if conn.execute(here.returning(spaces.c.id)).first():
                    written.add(fingerprint)
        return written
