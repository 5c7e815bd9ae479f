"""The sweep repairs what a dead process, an emptied Redis or the passing of time left behind.

Every worker and every API process sweeps. Sweeping twice does no harm: each change depends on the row's state.
"""

import math
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, false, or_, select, update

from semel.cache.keys import unpack_keys
from semel.clock import time_of
from semel.db import Database
from semel.log import get_log
from semel.tasks.jobs.ending import cancelling_and_idle, count_chunk, end, end_if_done
from semel.tasks.jobs.rows import (
    ACTIVE,
    WORKER_LOST,
    ChunkState,
    done_values,
    kept_outcomes,
    outcomes_of,
    unpack_errors,
)
from semel.tasks.jobs.schema import chunks, jobs, webhooks
from semel.values.job import ENDED, JobStatus
from semel.values.read_counts import ReadCounts
from semel.values.text import ItemError, Lane, Outcome
from semel.values.vectors import Found

log = get_log("sweep")

UPLOAD_SILENCE_S = 120.0
"""An upload that has sent nothing for this long was cut off."""

STARTS_ALONE = 2
"""A text that ended its worker this often while it was computed alone is what kills the workers."""

_MOST_ROWS = 500
"""Rows that one transaction changes: nobody waits long for its locks, and a driver's parameters are limited."""

_SETTLED_S = 6.0
"""How long sweeps must have run at their pace before leases end: after a stall, live workers renew theirs first."""

_CUT_OFF = ItemError(
    "upload_cut_off",
    "the upload stopped before it was complete; submit the job again: the finished texts are in the cache",
)


@dataclass(frozen=True)
class Swept:
    """The number of rows that one sweep changed, for each reason."""

    leases_expired: int = 0
    messages_lost: int = 0
    jobs_expired: int = 0
    jobs_deleted: int = 0
    uploads_cut_off: int = 0


class Sweeper:
    """Frees expired leases, sends lost messages again, and ends jobs and uploads that are out of time.

    Args:
        retention_s: how long a job that a sweep ends is kept.
        max_attempts: a chunk fails when this many workers died on it; otherwise it would kill workers for ever. Those
            that a text killed which was found do not count.
        lookup: which of some keys are in the cache, on a connection.
        every_s: how often `sweep` is called.
    """

    def __init__(
        self,
        db: Database,
        *,
        retention_s: float,
        max_attempts: int,
        lookup: Callable[[Connection, Sequence[bytes]], Found],
        every_s: float = 2.0,
    ) -> None:
        self._db = db
        self._retention_s = retention_s
        self._max_attempts = max_attempts
        self._lookup = lookup
        self._every_s = every_s
        self._steady_since = -math.inf
        self._last = self.last_good_at = time.monotonic()

    @property
    def age_s(self) -> float:
        """Seconds since every duty of a sweep succeeded."""
        return time.monotonic() - self.last_good_at

    def sweep(
        self,
        *,
        empty_queues: Sequence[tuple[Lane, str]] = (),
        resend_after_s: float = 0.0,
        gone: Collection[str] = (),
    ) -> Swept:
        """Run one sweep. Each duty has transactions of its own: one that fails does not hold up the others.

        Args:
            empty_queues: queues without a message. A chunk that was sent there and is not running has lost its message.
            resend_after_s: how long a message may be on its way before it counts as lost.
            gone: workers that are certainly dead: their leases end at once.

        Raises:
            Exception: the error of the first duty that failed, after the others were done.
        """
        with self._db.read() as conn:
            now = time_of(conn)
        if not self._db.clock.is_right:
            return Swept()
        started = time.monotonic()
        if started - self._last > 2 * self._every_s:  # this process or the database was held up
            self._steady_since = started
        stale = _in_hand_of(gone)
        if started - self._steady_since >= _SETTLED_S:
            stale = or_(stale, chunks.c.lease_until < now)
        late = (jobs.c.expires_at < now) & jobs.c.status.in_((*ACTIVE, JobStatus.CANCELLING.value))
        silent = (jobs.c.status == JobStatus.VALIDATING.value) & (jobs.c.touched_at < now - UPLOAD_SILENCE_S)
        lost = _lost(empty_queues, before=now - resend_after_s)
        duties: dict[str, Callable[[], int]] = {
            "cancelled": lambda: self._end(cancelling_and_idle(), JobStatus.CANCELLED),
            "leases_expired": lambda: self._free_stale((chunks.c.state == ChunkState.RUNNING) & stale),
            "messages_lost": lambda: self._resend(lost) if empty_queues else 0,
            "uploads_cut_off": lambda: self._end(silent, JobStatus.FAILED, _CUT_OFF),
            "jobs_expired": lambda: self._end(late, JobStatus.EXPIRED),
            "jobs_deleted": lambda: self._delete((jobs.c.expires_at < now) & jobs.c.status.in_(ENDED)),
        }
        counts = dict[str, int]()
        failure: Exception | None = None
        for name, duty in duties.items():
            try:
                counts[name] = duty()
            except Exception as error:  # noqa: BLE001  # whatever it is, it is raised when the others are done
                failure = failure or error
        self._last = time.monotonic()
        if failure is not None:
            raise failure
        self.last_good_at = time.monotonic()
        return Swept(**{name: count for name, count in counts.items() if name != "cancelled"})

    def owners(self) -> list[str]:
        """The workers that have a lease. Raises UnavailableError."""
        running = chunks.c.state == ChunkState.RUNNING
        return [row.lease_owner for row in self._some(select(chunks.c.lease_owner).where(running).distinct())]

    def _some(self, query: Select[Any]) -> list[Any]:
        """The first rows of a query, read without a lock: nothing is written while nothing is to be repaired."""
        with self._db.read() as conn:
            return list(conn.execute(query.limit(_MOST_ROWS)).all())

    def _end(self, which: ColumnElement[bool], status: JobStatus, error: ItemError | None = None) -> int:
        ids = [row.id for row in self._some(select(jobs.c.id).where(which))]
        if not ids:
            return 0
        with self._db.write(reserve=True) as conn:
            return end(conn, which & jobs.c.id.in_(ids), status, retention_s=self._retention_s, error=error)

    def _resend(self, lost: ColumnElement[bool]) -> int:
        places = self._some(select(chunks.c.job_id, chunks.c.position).where(lost))
        if not places:
            return 0
        these = or_(*(_at(row) for row in places))
        with self._db.write(reserve=True) as conn:
            return conn.execute(update(chunks).where(lost, these).values(state=ChunkState.PENDING)).rowcount

    def _free_stale(self, stale: ColumnElement[bool]) -> int:
        names = ("job_id", "position", "attempts", "texts", "outcomes", "errors_json", "packed_keys")
        counts = (chunks.c.tries, chunks.c.suspect_starts)
        rows = self._some(select(*(chunks.c[name] for name in names), *counts).where(stale))
        if not rows:
            return 0
        with self._db.write(reserve=True) as conn:
            for row in rows:
                # Only the row as it was read: since then its worker may have finished, or another sweep may have freed
                # it.
                here = _at(row) & stale & (chunks.c.attempts == row.attempts)
                if _unexplained(row) < self._max_attempts:
                    conn.execute(update(chunks).where(here).values(state=ChunkState.PENDING, lease_owner=None))
                else:
                    self._give_up(conn, row, here)
                end_if_done(conn, [row.job_id], retention_s=self._retention_s)
        return len(rows)

    def _give_up(self, conn: Connection, row: Any, here: ColumnElement[bool]) -> None:
        """Fail the texts of a chunk that killed too many workers: those without a vector, and not settled before."""
        error = ItemError(WORKER_LOST, f"{row.tries} workers died while they worked on this chunk")
        before, errors = outcomes_of(row), unpack_errors(row.errors_json)
        kept = kept_outcomes(before, errors)
        keys = unpack_keys(row.packed_keys)
        cached = self._lookup(conn, keys).present.tolist()
        outcomes = []
        for i in range(row.texts):
            if i in kept and before:
                outcomes.append(before[i])
            elif cached[i] and i not in errors:
                outcomes.append(Outcome.HIT)
            else:
                outcomes.append(Outcome.FAILED)
                errors.setdefault(i, error)
        if conn.execute(update(chunks).where(here).values(done_values(outcomes, errors))).rowcount:
            settled = [outcome for i, outcome in enumerate(outcomes) if i not in kept]
            count_chunk(conn, row.job_id, settled, ReadCounts(), retention_s=self._retention_s)

    def _delete(self, old: ColumnElement[bool]) -> int:
        ids = [row.id for row in self._some(select(jobs.c.id).where(old))]
        if not ids:
            return 0
        with self._db.write(reserve=True) as conn:
            ids = list(conn.execute(select(jobs.c.id).where(old, jobs.c.id.in_(ids))).scalars())
            conn.execute(chunks.delete().where(chunks.c.job_id.in_(ids)))
            conn.execute(webhooks.delete().where(webhooks.c.job_id.in_(ids)))
            conn.execute(jobs.delete().where(jobs.c.id.in_(ids)))
        return len(ids)


def _unexplained(row: Any) -> int:
    """How many workers died on a chunk without a text of it being known, or suspected, to be the cause."""
    killers = sum(error.code == WORKER_LOST for error in unpack_errors(row.errors_json).values())
    suspected: int = row.suspect_starts
    return int(row.tries) - (1 + STARTS_ALONE) * killers - suspected


def _at(row: Any) -> ColumnElement[bool]:
    return and_(chunks.c.job_id == row.job_id, chunks.c.position == row.position)


def _in_hand_of(workers: Collection[str]) -> ColumnElement[bool]:
    return chunks.c.lease_owner.in_(list(workers)) if workers else false()


def _lost(empty_queues: Sequence[tuple[Lane, str]], *, before: float) -> ColumnElement[bool]:
    """Chunks whose message was sent before this time (Unix seconds) to a queue that is empty now."""
    empty = or_(false(), *((jobs.c.lane == lane.value) & (jobs.c.device == device) for lane, device in empty_queues))
    sent = (chunks.c.state == ChunkState.SENT) & (chunks.c.sent_at < before)
    return sent & chunks.c.job_id.in_(select(jobs.c.id).where(empty))
