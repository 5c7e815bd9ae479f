"""Small jobs: those that fit into one chunk. Each is complete at once, and many share one transaction."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, insert, select

from semel.db import Database
from semel.tasks.jobs.ending import end_if_done, finish_hits
from semel.tasks.jobs.new_job import NewJob
from semel.tasks.jobs.rows import Added, NewChunk, chunk_row, is_all_done, job_of, parts_of
from semel.tasks.jobs.schema import chunks, jobs, webhooks
from semel.tasks.jobs.turns import Turn, Window, mark_sent, pick
from semel.values.job import Job, JobStatus
from semel.values.vectors import Found

_INSERT_JOBS, _INSERT_CHUNKS, _INSERT_WEBHOOKS = insert(jobs), insert(chunks), insert(webhooks)


@dataclass(frozen=True)
class SmallJob:
    """A job with all its texts.

    Attributes:
        webhook_url: called when the job has ended; None for no call.
    """

    new: NewJob
    chunk: NewChunk
    webhook_url: str | None = None


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
        `JobStore.add_chunks`.

        Args:
            windows: of the queues of these jobs.

        Returns:
            The jobs, what was added to each, and for each window the chunks to send after the commit.
        """
        now = time.time()
        rows = [
            each.new.row(now=now + i * 1e-6, window_s=self._window_s)  # they take turns in the order of their arrival
            | {"status": JobStatus.IN_PROGRESS.value, "in_progress_at": now}
            | {"total": len(each.chunk.keys), "chunks": 1}
            for i, each in enumerate(small)
        ]
        ids = [row["id"] for row in rows]
        with self._db.write() as conn:
            conn.execute(_INSERT_JOBS, rows)
            conn.execute(_INSERT_CHUNKS, [chunk_row(i, 0, each.chunk) for i, each in zip(ids, small, strict=True)])
            self._add_webhooks(conn, ids, small)
            added = self._finish_hits(conn, ids, small)
            turns = [mark_sent(conn, pick(conn, window), now=now) for window in windows]
            found = {row.id: job_of(row) for row in conn.execute(select(jobs).where(jobs.c.id.in_(ids)))}
        return [found[job_id] for job_id in ids], added, turns

    def _add_webhooks(self, conn: Connection, ids: Sequence[str], small: Sequence[SmallJob]) -> None:
        urls = [(job_id, each.webhook_url) for job_id, each in zip(ids, small, strict=True) if each.webhook_url]
        if urls:
            rows = [{"job_id": job_id, "url": url, "attempts": 0, "due_at": 0.0} for job_id, url in urls]
            conn.execute(_INSERT_WEBHOOKS, rows)

    def _finish_hits(self, conn: Connection, ids: Sequence[str], small: Sequence[SmallJob]) -> list[Added]:
        new = [each.chunk for each in small]
        found = self._lookup(conn, [key for chunk in new for key in chunk.keys])
        added, complete = list[Added](), list[str]()
        for job_id, each, part in zip(ids, small, parts_of(found, new), strict=True):
            done = 0
            if is_all_done(each.chunk, part):
                done = finish_hits(conn, (job_id, 0), each.chunk, part, truncate=each.new.truncate)
                complete.append(job_id)
            added.append(Added(done, int(part.present.sum())))
        if complete:
            end_if_done(conn, complete, retention_s=self._retention_s)
        return added
