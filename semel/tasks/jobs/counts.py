"""Counts over all jobs: how much work waits, for the backlog and for metrics."""

from collections import defaultdict
from copy import copy
from dataclasses import dataclass

from sqlalchemy import ColumnElement, func, select, true

from semel.db import Database
from semel.tasks.jobs.rows import ACTIVE
from semel.tasks.jobs.schema import chunks, jobs
from semel.values.job import ENDED
from semel.values.text import Lane

_DONE = jobs.c.hit + jobs.c.computed + jobs.c.coalesced + jobs.c.failed
"""The number of texts of a job that are done."""


@dataclass(frozen=True)
class WaitingWork:
    """The texts of one model that wait in one queue.

    Attributes:
        texts: number of texts of unfinished jobs that are not done.
        tokens_per_text: of the texts of these jobs that are done; None if none is.
    """

    lane: Lane
    device: str
    model: str
    texts: int
    tokens_per_text: float | None


@dataclass(frozen=True)
class Waiting:
    """The work that waits in one queue.

    Attributes:
        work: the texts of unfinished jobs that are not done, by model.
        oldest_sent_at: when the oldest message that no worker has taken was sent, Unix seconds; None if none waits.
    """

    work: list[WaitingWork]
    oldest_sent_at: float | None

    @property
    def texts(self) -> int:
        """The texts of all models."""
        return sum(work.texts for work in self.work)


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
        self._visible: ColumnElement[bool] = true()

    def within(self, namespace: str) -> "JobCounts":
        """The same counts, whose states are those of the jobs of a namespace; what waits is that of all."""
        scoped = copy(self)
        scoped._visible = jobs.c.namespace == namespace
        return scoped

    def now(self) -> float:
        """The database's time, by which all times of jobs are: Unix seconds. Raises UnavailableError."""
        return self._db.now()

    def waiting_work(self) -> list[WaitingWork]:
        """The texts of unfinished jobs that are not done yet, by queue and model."""
        places = (jobs.c.lane, jobs.c.device, jobs.c.model)
        sums = (func.sum(jobs.c.total - _DONE), func.sum(_DONE - jobs.c.failed), func.sum(jobs.c.tokens))
        query = select(*places, *sums).where(jobs.c.status.in_(ACTIVE)).group_by(*places)
        with self._db.read() as conn:
            rows = conn.execute(query).all()
        return [
            WaitingWork(Lane(lane), device, model, int(texts), float(tokens / done) if done else None)
            for lane, device, model, texts, done, tokens in rows
        ]

    def waiting(self) -> dict[tuple[Lane, str], Waiting]:
        """What waits, by lane and kind of device; queues without an unfinished job are left out."""
        work = defaultdict[tuple[Lane, str], list[WaitingWork]](list)
        for each in self.waiting_work():
            work[each.lane, each.device].append(each)
        oldest = (
            select(jobs.c.lane, jobs.c.device, func.min(chunks.c.sent_at).label("sent_at"))
            .join(jobs, jobs.c.id == chunks.c.job_id)
            .where(chunks.c.state == "sent")
            .group_by(jobs.c.lane, jobs.c.device)
        )
        with self._db.read() as conn:
            sent = {(Lane(row.lane), row.device): row.sent_at for row in conn.execute(oldest)} if work else {}
        return {queue: Waiting(here, sent.get(queue)) for queue, here in work.items()}

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
        query = select(jobs.c.status, func.count()).where(self._visible).group_by(jobs.c.status)
        with self._db.read() as conn:
            return {status: int(count) for status, count in conn.execute(query)}
