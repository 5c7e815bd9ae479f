"""How much there is to do: questions over all jobs, for the backlog and for metrics."""

from collections.abc import Sequence

from sqlalchemy import func, select

from semel.db import Database
from semel.tasks.jobs import ACTIVE
from semel.tasks.schema import chunks, jobs
from semel.values import Lane


class JobCounts:
    """Counts over the tables of jobs and chunks; changes nothing."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def waiting_texts(self, *, lanes: Sequence[Lane], device: str) -> int:
        """Texts of unfinished jobs in these queues that are not done yet."""
        done = jobs.c.hit + jobs.c.computed + jobs.c.coalesced + jobs.c.failed
        query = select(func.coalesce(func.sum(jobs.c.total - done), 0)).where(
            jobs.c.status.in_(ACTIVE), jobs.c.lane.in_([lane.value for lane in lanes]), jobs.c.device == device
        )
        with self._db.read() as conn:
            return int(conn.execute(query).scalar_one())

    def active_devices(self) -> set[str]:
        """Kinds of device that jobs wait for."""
        with self._db.read() as conn:
            return set(conn.execute(select(jobs.c.device).where(jobs.c.status.in_(ACTIVE)).distinct()).scalars())

    def oldest_sent(self, *, lane: Lane, device: str) -> float | None:
        """When the oldest message was sent that no worker has taken; Unix seconds."""
        query = (
            select(func.min(chunks.c.sent_at))
            .join(jobs, jobs.c.id == chunks.c.job_id)
            .where(chunks.c.state == "sent", jobs.c.lane == lane.value, jobs.c.device == device)
        )
        with self._db.read() as conn:
            return conn.execute(query).scalar_one()

    def count_by_status(self) -> dict[str, int]:
        """How many jobs are in each state."""
        query = select(jobs.c.status, func.count()).group_by(jobs.c.status)
        with self._db.read() as conn:
            return {status: int(count) for status, count in conn.execute(query)}
