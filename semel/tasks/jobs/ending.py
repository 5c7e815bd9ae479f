"""How jobs end. The functions run in the transaction of their caller: the job store, a worker's chunk or the sweep."""

import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, bindparam, case, exists, func, update

from semel.clock import time_of
from semel.tasks.jobs.rows import ChunkState, Finished, NewChunk, Place, done_values
from semel.tasks.jobs.schema import chunks, jobs
from semel.values.job import ENDED, JobStatus
from semel.values.read_counts import ReadCounts
from semel.values.text import ItemError, Outcome, size_of
from semel.values.vectors import Found, refused_truncation


def end(
    conn: Connection,
    which: ColumnElement[bool],
    status: JobStatus,
    *,
    retention_s: float,
    error: ItemError | None = None,
) -> int:
    """End the selected jobs that have not ended yet; returns their number.

    Args:
        which: a condition on `jobs`.
        retention_s: how long an ended job is kept.
        error: why the jobs end.
    """
    ended_at = time_of(conn)
    values: dict[str, Any] = {"status": status.value, f"{status.value}_at": ended_at}
    values["expires_at"] = ended_at + retention_s
    if status is JobStatus.COMPLETED:
        values["finalizing_at"] = ended_at  # nothing is left to write: results are read from the cache
    if error is not None:
        values["error_json"] = json.dumps([error.code, error.message])
    ended = update(jobs).where(which, jobs.c.status.not_in(ENDED)).values(values).returning(jobs.c.id)
    ids = list(conn.execute(ended).scalars())
    if ids and status is not JobStatus.COMPLETED:
        cancel_waiting(conn, chunks.c.job_id.in_(ids))
    return len(ids)


def end_if_done(conn: Connection, job_ids: Sequence[str], *, retention_s: float) -> None:
    """Complete those jobs whose chunks are all done; end those that are being cancelled and have no running chunk."""
    here = jobs.c.id.in_(job_ids)
    done = (jobs.c.status == JobStatus.IN_PROGRESS.value) & (jobs.c.chunks_done == jobs.c.chunks)
    end(conn, here & done, JobStatus.COMPLETED, retention_s=retention_s)
    end(conn, here & cancelling_and_idle(), JobStatus.CANCELLED, retention_s=retention_s)


def cancelling_and_idle() -> ColumnElement[bool]:
    """The condition on `jobs` for those that are being cancelled and have no running chunk any more."""
    running = exists().where(chunks.c.job_id == jobs.c.id, chunks.c.state == ChunkState.RUNNING)
    return (jobs.c.status == JobStatus.CANCELLING.value) & ~running


def cancel_waiting(conn: Connection, which: ColumnElement[bool]) -> None:
    """Cancel the selected chunks that no worker is working on.

    Args:
        which: a condition on `chunks`.
    """
    waiting = chunks.c.state.in_((ChunkState.PENDING, ChunkState.SENT))
    conn.execute(update(chunks).where(which, waiting).values(state=ChunkState.CANCELLED))


_COUNTED = (*(outcome.value for outcome in Outcome), "truncated", "tokens", "unread", "chunks_done")

_IS_LAST = (jobs.c.status == JobStatus.IN_PROGRESS.value) & (jobs.c.chunks_done + 1 == jobs.c.chunks)

_COUNT = (
    update(jobs)
    .where(jobs.c.id == bindparam("of_job"))
    .values({name: jobs.c[name] + bindparam(f"more_{name}") for name in _COUNTED})
    .values(
        first_result_at=func.coalesce(jobs.c.first_result_at, bindparam("now")),
        status=case((_IS_LAST, JobStatus.COMPLETED.value), else_=jobs.c.status),
        completed_at=case((_IS_LAST, bindparam("now")), else_=jobs.c.completed_at),
        finalizing_at=case((_IS_LAST, bindparam("now")), else_=jobs.c.finalizing_at),
        expires_at=case((_IS_LAST, bindparam("expires")), else_=jobs.c.expires_at),
    )
)
"""Adds a chunk to the counts of its job, and completes the job with its last chunk. Nothing is left to write then:
results are read from the cache."""


def count_chunk(
    conn: Connection, job_id: str, outcomes: Sequence[Outcome], read: ReadCounts, *, retention_s: float
) -> None:
    """Add a finished chunk to the counts of its job, and complete the job with its last chunk.

    Args:
        outcomes: those of the texts that have not been counted before.
        read: how much of these the model read.
        retention_s: how long a completed job is kept.
    """
    conn.execute(_COUNT, _counted(job_id, outcomes, read, time_of(conn), retention_s))


def count_chunks(conn: Connection, finished: Sequence[Finished], *, retention_s: float) -> None:
    """Add finished chunks to the counts of their jobs, as `count_chunk` does."""
    ended_at = time_of(conn)
    rows = [_counted(each.work.job_id, each.settled, each.read, ended_at, retention_s) for each in finished]
    conn.execute(_COUNT, sorted(rows, key=lambda row: row["of_job"]))  # all lock the jobs in one order: no deadlock


def _counted(
    job_id: str, outcomes: Sequence[Outcome], read: ReadCounts, at: float, retention_s: float
) -> dict[str, Any]:
    added = {outcome.value: outcomes.count(outcome) for outcome in Outcome}
    added |= {**vars(read), "chunks_done": 1}
    more = {f"more_{name}": added[name] for name in _COUNTED}
    return {"of_job": job_id, "now": at, "expires": at + retention_s, **more}


def finish_hits(
    conn: Connection, place: Place, chunk: NewChunk, found: Found, *, truncate: bool, retention_s: float
) -> int:
    """Record a chunk whose texts are all in the cache, or bad; returns its number of hits.

    Args:
        found: the rows of the cache for the keys of the chunk.
        truncate: False makes a text above the model's limit fail instead of being cut.
        retention_s: how long a completed job is kept.
    """
    job_id, position = place
    errors = dict(chunk.errors)
    if not truncate:
        errors |= refused_truncation(found.truncated.tolist())
    outcomes = [Outcome.FAILED if i in errors else Outcome.HIT for i in range(len(chunk.keys))]
    here = (chunks.c.job_id == job_id) & (chunks.c.position == position)
    conn.execute(update(chunks).where(here).values(done_values(outcomes, errors)))
    read = ReadCounts.of([size_of(text) for text in chunk.texts], found.tokens.tolist(), found.truncated.tolist())
    count_chunk(conn, job_id, outcomes, read, retention_s=retention_s)
    return outcomes.count(Outcome.HIT)
