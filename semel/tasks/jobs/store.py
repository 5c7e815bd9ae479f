"""The job store: each job is a row, and each change of state is one transaction.

Whatever process dies, the rows record what is left to do: `semel.tasks.jobs.sweep` restarts it.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from copy import copy

from sqlalchemy import ColumnElement, Connection, bindparam, select, true, tuple_, update

from semel.clock import time_of
from semel.db import Database
from semel.errors import ConflictError, NotFoundError
from semel.tasks.jobs.ending import cancel_waiting, end, end_if_done, finish_hits
from semel.tasks.jobs.idempotency import Reservation
from semel.tasks.jobs.new_job import NewJob, job_of
from semel.tasks.jobs.rows import (
    ACTIVE,
    Added,
    ChunkResult,
    ChunkState,
    NewChunk,
    chunk_result,
    chunk_row,
    is_all_done,
    parts_of,
)
from semel.tasks.jobs.schema import chunks, jobs, webhooks
from semel.values.job import ENDED, OPEN, Job, JobStatus
from semel.values.text import ItemError
from semel.values.vectors import Found

_GET = select(jobs).where(jobs.c.id == bindparam("id"))

_RESULTS_A_READ = 8
"""Finished chunks in one read."""


_MOST_TEXTS = 2**62
"""More texts than any job has; the databases count to 2**63 - 1."""

_RESULT = ("job_id", "position", "first_index", "packed_keys", "outcomes", "errors_json", "payload", "extras")

_FINISHED = select(*(chunks.c[name] for name in _RESULT)).where(chunks.c.state == ChunkState.DONE)

_RESULTS_OF = _FINISHED.where(chunks.c.job_id.in_(bindparam("ids", expanding=True))).order_by(
    chunks.c.job_id, chunks.c.position
)

_RESULTS = (
    _FINISHED.where(
        chunks.c.job_id == bindparam("id"),
        chunks.c.first_index + chunks.c.texts > bindparam("first"),
        chunks.c.first_index < bindparam("stop"),
        chunks.c.position > bindparam("after"),
    )
    .order_by(chunks.c.position)
    .limit(_RESULTS_A_READ)
)


class JobStore:
    """Jobs by id.

    Args:
        window_s: seconds from the creation of a job until it expires.
        retention_s: how long an ended job, and the vectors that it needs, are kept.
    """

    def __init__(self, db: Database, *, window_s: float, retention_s: float) -> None:
        self._visible: ColumnElement[bool] = true()
        self._get = _GET
        self._db = db
        self._window_s = window_s
        self._retention_s = retention_s

    def within(self, namespace: str) -> "JobStore":
        """The same store for those for whom only the jobs of a namespace exist."""
        scoped = copy(self)
        scoped._visible = jobs.c.namespace == namespace
        scoped._get = _GET.where(scoped._visible)
        return scoped

    # Submitting

    def create(self, new: NewJob) -> Job:
        """Create a job without texts, in state `validating`."""
        row = new.row(now=self._db.now(), window_s=self._window_s)
        with self._db.write() as conn:
            conn.execute(jobs.insert().values(row))
        return self.get(row["id"])

    def add_chunks(
        self, job: Job, new: Sequence[NewChunk], *, lookup: Callable[[Connection, Sequence[bytes]], Found]
    ) -> Added:
        """Append chunks; a chunk whose texts are all in the cache is done at once and never queued.

        The look-up runs after the insert, in the same transaction: it sees the deletions of an earlier prune, and a
        later prune finds the keys in the chunk rows and spares them.

        Args:
            lookup: `VectorStore.lookup_on`.

        Raises:
            ConflictError: the job accepts no more texts (cancelled, expired).
        """
        with self._db.write() as conn:
            first = _append(conn, job.id, new)
            found = lookup(conn, [key for c in new for key in c.keys])
            done = 0
            for offset, (chunk, part) in enumerate(zip(new, parts_of(found, new), strict=True)):
                if is_all_done(chunk, part):
                    done += finish_hits(
                        conn,
                        (job.id, first + offset),
                        chunk,
                        part,
                        truncate=job.truncate,
                        retention_s=self._retention_s,
                    )
        return Added(done, int(found.present.sum()))

    def touch(self, job_id: str) -> None:
        """Record that an upload is still active although it has not filled a chunk yet."""
        with self._db.write(reserve=True) as conn:
            conn.execute(update(jobs).where(jobs.c.id == job_id).values(touched_at=time_of(conn)))

    def seal(self, job_id: str, reservation: Reservation | None = None) -> Job:
        """Record that all texts of the job have arrived, and that its idempotency key stands for it."""
        now = self._db.now()
        with self._db.write(reserve=True) as conn:
            conn.execute(
                update(jobs)
                .where(jobs.c.id == job_id, jobs.c.status == JobStatus.VALIDATING.value)
                .values(status=JobStatus.IN_PROGRESS.value, in_progress_at=now)
            )
            if reservation is not None:
                reservation.seal(conn, job_id)
            end_if_done(conn, [job_id], retention_s=self._retention_s)
        return self.get(job_id)

    # Reading

    def get(self, job_id: str) -> Job:
        """The job with this id. Raises NotFoundError."""
        with self._db.read(single=True) as conn:
            row = conn.execute(self._get, {"id": job_id}).first()
        if row is None:
            raise NotFoundError("job", job_id)
        return job_of(row)

    def list_jobs(
        self, *, limit: int, after: str | None = None, status: JobStatus | None = None, model: str | None = None
    ) -> list[Job]:
        """Jobs, the newest first.

        Args:
            after: id of the last job on the previous page.
            status, model: list only jobs with this status or model.

        Raises:
            NotFoundError: `after` is no job.
        """
        query = select(jobs).where(self._visible).order_by(jobs.c.created_at.desc(), jobs.c.id.desc()).limit(limit)
        if status is not None:
            query = query.where(jobs.c.status == status.value)
        if model is not None:
            query = query.where(jobs.c.model == model)
        if after is not None:
            last = self.get(after)
            query = query.where(tuple_(jobs.c.created_at, jobs.c.id) < (last.created_at, last.id))
        with self._db.read() as conn:
            return [job_of(row) for row in conn.execute(query)]

    def find(self, job_ids: Collection[str]) -> list[Job]:
        """The jobs among `job_ids` that exist, in no particular order."""
        if not job_ids:
            return []
        with self._db.read() as conn:
            return [job_of(row) for row in conn.execute(select(jobs).where(jobs.c.id.in_(job_ids)))]

    def list_open(self, *, limit: int) -> list[Job]:
        """Jobs that have not ended, the oldest first."""
        query = select(jobs).where(jobs.c.status.in_(OPEN)).order_by(jobs.c.created_at).limit(limit)
        with self._db.read() as conn:
            return [job_of(row) for row in conn.execute(query)]

    def any_active(self, job_ids: Collection[str]) -> bool:
        """Whether the chunks of one of these jobs are still to be worked on."""
        query = select(jobs.c.id).where(jobs.c.id.in_(job_ids), jobs.c.status.in_(ACTIVE)).limit(1)
        with self._db.read() as conn:
            return conn.execute(query).first() is not None

    def results(self, job_id: str, *, first: int = 0, stop: int | None = None) -> Iterator[ChunkResult]:
        """The finished chunks of a job in order, read a few rows at a time.

        Args:
            first, stop: only chunks with a text in this range of positions in the job.
        """
        last = -1
        while True:
            part = {"id": job_id, "first": first, "stop": _MOST_TEXTS if stop is None else stop, "after": last}
            with self._db.read(single=True) as conn:
                rows = conn.execute(_RESULTS, part).all()
            for row in rows:
                yield chunk_result(row)
                last = row.position
            if len(rows) < _RESULTS_A_READ:
                return

    def results_of(self, job_ids: Sequence[str]) -> list[tuple[str, ChunkResult]]:
        """The finished chunks of several small jobs, each with the id of its job, by position."""
        with self._db.read(single=True) as conn:
            rows = conn.execute(_RESULTS_OF, {"ids": job_ids}).all()
        return [(row.job_id, chunk_result(row)) for row in rows]

    # Ending

    def explain(self, job_ids: Collection[str], why: str) -> None:
        """Record why these jobs do not go on, for those who look at them."""
        with self._db.write(reserve=True) as conn:
            conn.execute(update(jobs).where(jobs.c.id.in_(job_ids), jobs.c.status.in_(ACTIVE)).values(why=why))

    def fail(self, job_id: str, error: ItemError) -> None:
        """End a job as failed; the vectors that were computed stay in the cache."""
        with self._db.write(reserve=True) as conn:
            end(conn, jobs.c.id == job_id, JobStatus.FAILED, retention_s=self._retention_s, error=error)

    def cancel(self, job_id: str) -> Job:
        """Stop a job: chunks that no worker holds are cancelled now, the others when their workers notice.

        Raises:
            NotFoundError: there is no such job.
            ConflictError: the job has ended in another way.
        """
        now = self._db.now()
        with self._db.write(reserve=True) as conn:
            changed = conn.execute(
                update(jobs)
                .where(jobs.c.id == job_id, self._visible, jobs.c.status.in_(ACTIVE))
                .values(status=JobStatus.CANCELLING.value, cancelling_at=now)
            ).rowcount
            if changed:
                cancel_waiting(conn, chunks.c.job_id == job_id)
                end_if_done(conn, [job_id], retention_s=self._retention_s)
        job = self.get(job_id)
        if not changed and job.status not in (JobStatus.CANCELLING, JobStatus.CANCELLED):
            raise ConflictError(f"job {job_id} is {job.status} and cannot be cancelled any more")
        return job

    def delete(self, job_id: str) -> None:
        """Delete a job that has ended; its vectors stay in the cache until they are pruned.

        Raises:
            NotFoundError: there is no such job.
            ConflictError: the job has not ended.
        """
        ended = (jobs.c.id == job_id) & self._visible & jobs.c.status.in_(ENDED)
        with self._db.write(reserve=True) as conn:
            deleted = conn.execute(jobs.delete().where(ended)).rowcount
            if deleted:
                conn.execute(chunks.delete().where(chunks.c.job_id == job_id))
                conn.execute(webhooks.delete().where(webhooks.c.job_id == job_id))
        if not deleted:
            raise ConflictError(f"job {job_id} is {self.get(job_id).status}; cancel it first")


def _append(conn: Connection, job_id: str, new: Sequence[NewChunk]) -> int:
    """Insert the rows of new chunks; returns the position of the first one. Raises ConflictError."""
    texts = sum(len(c.keys) for c in new)
    grown = {"chunks": jobs.c.chunks + len(new), "total": jobs.c.total + texts, "touched_at": time_of(conn)}
    receiving = (jobs.c.id == job_id) & (jobs.c.status == JobStatus.VALIDATING.value)
    job = conn.execute(update(jobs).where(receiving).values(grown).returning(jobs.c.chunks)).first()
    if job is None:
        raise ConflictError(f"job {job_id} accepts no more texts: it was cancelled or has ended")
    first = int(job.chunks) - len(new)
    conn.execute(chunks.insert(), [chunk_row(job_id, first + i, c) for i, c in enumerate(new)])
    return first
