"""Counts over all jobs: how much work waits, for the backlog and for metrics."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import func, select

from semel.db import Database
from semel.tasks.jobs.rows import ACTIVE
from semel.tasks.jobs.schema import chunks, jobs
from semel.values.job import ENDED
from semel.values.text import Lane

_DONE = jobs.c.hit + jobs.c.computed + jobs.c.coalesced + jobs.c.failed
"""The number of texts of a job that are done."""


@dataclass(frozen=True)
class Waiting:
    """The work that waits in one queue.

    Attributes:
        texts: number of texts of unfinished jobs that are not done.
        oldest_sent_at: when the oldest message that no worker has taken was sent, Unix seconds; None if none waits.
    """

    texts: int
    oldest_sent_at: float | None


@dataclass(frozen=True)
class EndedJob:
    """A job that has ended. Times are Unix seconds.

    Attributes:
        begun_at: when it was created or last retried.
        first_result_at: None if it never had a result; earlier than `begun_at` if the first result preceded a retry.
    """

    id: str
    status: str
    begun_at: float
    first_result_at: float | None
    ended_at: float


class JobCounts:
    """Counts over the tables of jobs and chunks; changes nothing."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def now(self) -> float:
        """The database's time, by which all times of jobs are: Unix seconds. Raises UnavailableError."""
        return self._db.now()

    def waiting_texts(self, *, lanes: Sequence[Lane], device: str) -> int:
        """The number of texts of unfinished jobs in these queues that are not done yet."""
        query = select(func.coalesce(func.sum(jobs.c.total - _DONE), 0)).where(
            jobs.c.status.in_(ACTIVE), jobs.c.lane.in_([lane.value for lane in lanes]), jobs.c.device == device
        )
        with self._db.read() as conn:
            return int(conn.execute(query).scalar_one())

    def waiting(self) -> dict[tuple[Lane, str], Waiting]:
        """What waits, by lane and kind of device; queues without an unfinished job are left out."""
        texts = (
            select(jobs.c.lane, jobs.c.device, func.sum(jobs.c.total - _DONE).label("texts"))
            .where(jobs.c.status.in_(ACTIVE))
            .group_by(jobs.c.lane, jobs.c.device)
        )
        oldest = (
            select(jobs.c.lane, jobs.c.device, func.min(chunks.c.sent_at).label("sent_at"))
            .join(jobs, jobs.c.id == chunks.c.job_id)
            .where(chunks.c.state == "sent")
            .group_by(jobs.c.lane, jobs.c.device)
        )
        with self._db.read() as conn:
            rows = conn.execute(texts).all()
            sent = {(row.lane, row.device): row.sent_at for row in conn.execute(oldest)} if rows else {}
        return {(Lane(row.lane), row.device): Waiting(int(row.texts), sent.get((row.lane, row.device))) for row in rows}

    def ended_since(self, at: float) -> list[EndedJob]:
        """Jobs that ended at or after this moment, Unix seconds."""
        ended_at = func.coalesce(*(jobs.c[f"{status}_at"] for status in ENDED)).label("ended_at")
        begun_at = func.coalesce(jobs.c.retried_at, jobs.c.created_at).label("begun_at")
        columns = (jobs.c.id, jobs.c.status, begun_at, jobs.c.first_result_at, ended_at)
        query = select(*columns).where(jobs.c.status.in_(ENDED), ended_at >= at)
        with self._db.read() as conn:
            return [EndedJob(**row._mapping) for row in conn.execute(query)]

    def count_by_status(self) -> dict[str, int]:
        """The number of jobs in each state; states without a job are left out."""
        query = select(jobs.c.status, func.count()).group_by(jobs.c.status)
        with self._db.read() as conn:
            return {status: int(count) for status, count in conn.execute(query)}
