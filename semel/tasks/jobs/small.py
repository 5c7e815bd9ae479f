"""Small jobs: those that fit into one chunk. Each is complete at once, and many share one transaction."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from sqlalchemy import Connection, insert, select

from semel.db import Database
from semel.tasks.jobs.ending import finish_hits
from semel.tasks.jobs.idempotency import Reservation
from semel.tasks.jobs.new_job import NewJob, job_of
from semel.tasks.jobs.rows import Added, ChunkState, NewChunk, chunk_row, is_all_done, parts_of
from semel.tasks.jobs.schema import chunks, jobs, webhooks
from semel.tasks.jobs.turns import Turn, Window, mark_sent, pick, room
from semel.values.job import Job, JobStatus
from semel.values.vectors import Found

_EMPTY = {column.name: None for column in jobs.columns if column.nullable and column.name != "traceparent"}
"""The columns that a new row leaves out; `NewJob.row` and `SmallJobs.submit` give the others."""

_INSERT_JOBS, _INSERT_CHUNKS, _INSERT_WEBHOOKS = insert(jobs), insert(chunks), insert(webhooks)


@dataclass(frozen=True)
class SmallJob:
    """A job with all its texts.

    Attributes:
        webhook_url: called when the job has ended; None for no call.
        reservation: of its idempotency key, if it has one.
    """

    new: NewJob
    chunk: NewChunk
    webhook_url: str | None = None
    reservation: Reservation | None = None


class SmallJobs:
    """Creates small jobs.

    Args:
        window_s: seconds from the creation of a job until it expires.
        retention_s: how long an ended job is kept.
        lookup: `VectorStore.lookup_on`.
    """

    def __init__(
        self,
        db: Database,
        *,
        window_s: float,
        retention_s: float,
        lookup: Callable[[Connection, Sequence[bytes]], Found],
    ) -> None:
        self._db = db
        self._window_s = window_s
        self._retention_s = retention_s
        self._lookup = lookup

    def submit(
        self, small: Sequence[SmallJob], windows: Sequence[Window]
    ) -> tuple[list[Job], list[Added], list[list[Turn]]]:
        """Create the jobs and record whose turn it is, all in one transaction.

        A job whose texts are all in the cache is completed. The look-up runs after the inserts, see
        `JobStore.add_chunks`. Where nothing waits and there is room, the new chunks are sent at once.

        Args:
            windows: of the queues of these jobs.

        Returns:
            The jobs, what was added to each, and for each window the chunks to send after the commit.
        """
        now = self._db.now()
        rows = [
            each.new.row(now=now + i * 1e-6, window_s=self._window_s)  # they take turns in the order of their arrival
            | {"status": JobStatus.IN_PROGRESS.value, "in_progress_at": now}
            | {"total": len(each.chunk.keys), "chunks": 1}
            for i, each in enumerate(small)
        ]
        ids = [row["id"] for row in rows]
        parts = [chunk_row(job_id, 0, each.chunk) for job_id, each in zip(ids, small, strict=True)]
        with self._db.write() as conn:
            direct = self._mark_direct(conn, small, parts, windows, now)
            conn.execute(_INSERT_JOBS, rows)
            conn.execute(_INSERT_CHUNKS, parts)
            self._add_webhooks(conn, ids, small)
            for job_id, each in zip(ids, small, strict=True):
                if each.reservation is not None:
                    each.reservation.seal(conn, job_id)
            added, complete = self._finish_hits(conn, ids, small)
            turns = [
                [turn for turn in direct[window] if turn.job_id not in complete]
                if window in direct
                else mark_sent(conn, pick(conn, window), now=now)
                for window in windows
            ]
            query = select(jobs).where(jobs.c.id.in_(complete))
            found = {row.id: job_of(row) for row in conn.execute(query)} if complete else {}
        made = [found.get(row["id"]) or job_of(SimpleNamespace(**{**_EMPTY, **row})) for row in rows]
        return made, added, turns

    def _mark_direct(
        self,
        conn: Connection,
        small: Sequence[SmallJob],
        parts: Sequence[dict[str, Any]],
        windows: Sequence[Window],
        now: float,
    ) -> dict[Window, list[Turn]]:
        """Mark the new chunks as sent in their rows, for the windows with room for all of them and nobody who waits."""
        direct: dict[Window, list[Turn]] = {}
        for window in windows:
            mine = [
                (part, each.new.space.published.fingerprint)
                for part, each in zip(parts, small, strict=True)
                if (each.new.lane, each.new.device) == (window.lane, window.device)
            ]
            spaces = {fingerprint for _, fingerprint in mine}
            weight = sum(part["weight"] for part, _ in mine)
            if all(room(conn, window, fingerprint) >= weight for fingerprint in spaces):
                for part, _ in mine:
                    part |= {"state": ChunkState.SENT, "sent_at": now}
                direct[window] = [Turn(part["job_id"], 0, part["weight"], fingerprint) for part, fingerprint in mine]
        return direct

    def _add_webhooks(self, conn: Connection, ids: Sequence[str], small: Sequence[SmallJob]) -> None:
        urls = [(job_id, each.webhook_url) for job_id, each in zip(ids, small, strict=True) if each.webhook_url]
        if urls:
            rows = [{"job_id": job_id, "url": url, "attempts": 0, "due_at": 0.0} for job_id, url in urls]
            conn.execute(_INSERT_WEBHOOKS, rows)

    def _finish_hits(
        self, conn: Connection, ids: Sequence[str], small: Sequence[SmallJob]
    ) -> tuple[list[Added], set[str]]:
        """Complete the jobs that need no worker; returns what was added to each, and the ids of those."""
        new = [each.chunk for each in small]
        found = self._lookup(conn, [key for chunk in new for key in chunk.keys])
        added, complete = list[Added](), set[str]()
        for job_id, each, part in zip(ids, small, parts_of(found, new), strict=True):
            done = 0
            if is_all_done(each.chunk, part):
                truncate, retention_s = each.new.truncate, self._retention_s
                done = finish_hits(conn, (job_id, 0), each.chunk, part, truncate=truncate, retention_s=retention_s)
                complete.add(job_id)
            added.append(Added(done, int(part.present.sum())))
        return added, complete
