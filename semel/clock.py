"""The time of the database, which is the same for every process: the clocks of hosts differ."""

import time
from threading import Lock

from sqlalchemy import Connection

from semel.log import get_log

log = get_log("clock")

TOLERATED_S = 2.0
"""A clock that differs by more than this is wrong: network time keeps hosts within milliseconds."""

_CHECK_S = 10.0
"""How often the difference is measured: clocks drift by less than a millisecond in that time."""


class DatabaseClock:
    """Unix seconds of the server of PostgreSQL. SQLite has no server: all its processes are on one host. Thread-safe.

    Attributes:
        ahead_s: how far the database was ahead of this host when that was last measured.
    """

    def __init__(self) -> None:
        self.ahead_s = 0.0
        self._check_at = 0.0
        self._lock = Lock()

    def now(self, conn: Connection) -> float:
        """The time now, in Unix seconds; every ten seconds it takes a round trip on this connection."""
        if conn.dialect.name == "postgresql" and self.is_due:
            self._measure(conn)
        return self.estimate()

    def estimate(self) -> float:
        """As `now`, by the difference that was measured last: never asks the database."""
        return time.time() + self.ahead_s

    @property
    def is_due(self) -> bool:
        """Whether the difference was measured too long ago."""
        return time.monotonic() >= self._check_at

    @property
    def is_right(self) -> bool:
        """Whether this host's clock and the database's agree."""
        return abs(self.ahead_s) <= TOLERATED_S

    def _measure(self, conn: Connection) -> None:
        before = time.time()
        there = float(conn.exec_driver_sql("SELECT extract(epoch FROM clock_timestamp())").scalar_one())
        with self._lock:
            was_right = self.is_right
            self.ahead_s = there - (before + time.time()) / 2
            self._check_at = time.monotonic() + _CHECK_S
        if self.is_right and not was_right:
            log.info("this host's clock agrees with the database's again")
        elif was_right and not self.is_right:
            log.warning(
                "this host's clock is wrong: it differs from the database's, whose time is used; this process ends no "
                "leases and deletes nothing until it is set",
                seconds=round(-self.ahead_s, 1),
            )


def time_of(conn: Connection) -> float:
    """The time now of the database behind a connection of `semel.db.Database`, in Unix seconds."""
    clock: DatabaseClock = conn.get_execution_options()["semel_clock"]
    return clock.now(conn)
