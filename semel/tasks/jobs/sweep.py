"""The sweep repairs what a dead process, an emptied Redis or the passing of time left behind.

Every worker and every API process sweeps. Sweeping twice does no harm: each change depends on the row's state.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, false, or_, select, update

from semel.db import Database
from semel.tasks.jobs.ending import cancelling_and_idle, count_chunk, end, end_if_done
from semel.tasks.jobs.rows import ACTIVE, ChunkState, done_values, kept_outcomes, outcomes_of, unpack_errors
from semel.tasks.jobs.schema import chunks, jobs, webhooks
from semel.values.job import ENDED, JobStatus
from semel.values.text import ItemError, Lane, Outcome

UPLOAD_SILENCE_S = 120.0
"""An upload that has sent nothing for this long was cut off."""

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
        max_attempts: a chunk fails when this many workers died on it; otherwise it would kill workers for ever.
    """

    def __init__(self, db: Database, *, retention_s: float, max_attempts: int) -> None:
        self._db = db
        self._retention_s = retention_s
        self._max_attempts = max_attempts

    def sweep(self, *, empty_queues: Sequence[tuple[Lane, str]] = (), resend_after_s: float = 0.0) -> Swept:
        """Run one sweep.

        Args:
            empty_queues: queues without a message. A chunk that was sent there and is not running has lost its message.
            resend_after_s: how long a message may be on its way before it counts as lost.
        """
        now = time.time()
        stale = (chunks.c.state == ChunkState.RUNNING) & (chunks.c.lease_until < now)
        lost = _lost(empty_queues, before=now - resend_after_s)
        silent = (jobs.c.status == JobStatus.VALIDATING.value) & (jobs.c.touched_at < now - UPLOAD_SILENCE_S)
        late = (jobs.c.expires_at < now) & jobs.c.status.in_((*ACTIVE, JobStatus.CANCELLING.value))
        old = (jobs.c.expires_at < now) & jobs.c.status.in_(ENDED)
        with self._db.read() as conn:
            queries = [select(chunks.c.job_id).where(stale), select(chunks.c.job_id).where(lost)]
            queries += [select(jobs.c.id).where(or_(late, silent, old, cancelling_and_idle()))]
            if not any(conn.execute(query.limit(1)).first() for query in queries):
                return Swept()
        with self._db.write(reserve=True) as conn:
            expired = self._free_stale(conn, stale)
            resent = conn.execute(update(chunks).where(lost).values(state=ChunkState.PENDING)).rowcount
            cut = end(conn, silent, JobStatus.FAILED, retention_s=self._retention_s, error=_CUT_OFF)
            end(conn, cancelling_and_idle(), JobStatus.CANCELLED, retention_s=self._retention_s)
            ended = end(conn, late, JobStatus.EXPIRED, retention_s=self._retention_s)
            return Swept(expired, resent, ended, _delete(conn, old), cut)

    def _free_stale(self, conn: Connection, stale: ColumnElement[bool]) -> int:
        names = ("job_id", "position", "attempts", "texts", "outcomes", "errors_json")
        rows = conn.execute(select(*(chunks.c[name] for name in names)).where(stale)).all()
        for row in rows:
            # Only the row as it was read: since then its worker may have finished, or another sweep may have freed it.
            here = (chunks.c.job_id == row.job_id) & (chunks.c.position == row.position) & stale
            here &= chunks.c.attempts == row.attempts
            if row.attempts < self._max_attempts:
                conn.execute(update(chunks).where(here).values(state=ChunkState.PENDING, lease_owner=None))
            else:
                _fail_chunk(conn, row, here, retention_s=self._retention_s)
            end_if_done(conn, [row.job_id], retention_s=self._retention_s)
        return len(rows)


def _lost(empty_queues: Sequence[tuple[Lane, str]], *, before: float) -> ColumnElement[bool]:
    """Chunks whose message was sent before this time (Unix seconds) to a queue that is empty now."""
    empty = or_(false(), *((jobs.c.lane == lane.value) & (jobs.c.device == device) for lane, device in empty_queues))
    sent = (chunks.c.state == ChunkState.SENT) & (chunks.c.sent_at < before)
    return sent & chunks.c.job_id.in_(select(jobs.c.id).where(empty))


def _fail_chunk(conn: Connection, row: Any, here: ColumnElement[bool], *, retention_s: float) -> None:
    """Fail the texts of a chunk that killed too many workers, except those that an earlier run has settled."""
    error = ItemError("worker_lost", f"{row.attempts} workers died while they worked on this chunk")
    before, errors = outcomes_of(row), unpack_errors(row.errors_json)
    kept = kept_outcomes(before, errors)
    outcomes = [before[i] if i in kept else Outcome.FAILED for i in range(row.texts)]
    errors |= {i: error for i in range(row.texts) if i not in kept}
    if conn.execute(update(chunks).where(here).values(done_values(outcomes, errors))).rowcount:
        failed = [outcome for i, outcome in enumerate(outcomes) if i not in kept]
        count_chunk(conn, row.job_id, failed, truncated=0, tokens=0, retention_s=retention_s)


def _delete(conn: Connection, old: ColumnElement[bool]) -> int:
    ids = list(conn.execute(select(jobs.c.id).where(old)).scalars())
    conn.execute(chunks.delete().where(chunks.c.job_id.in_(ids)))
    conn.execute(webhooks.delete().where(webhooks.c.job_id.in_(ids)))
    conn.execute(jobs.delete().where(jobs.c.id.in_(ids)))
    return len(ids)
