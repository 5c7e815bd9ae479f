"""Webhooks: the URLs to call when a job has ended, and the state of each delivery."""

from dataclasses import dataclass

from sqlalchemy import select, update

from semel.db import Database
from semel.tasks.jobs.schema import jobs, webhooks
from semel.values.job import ENDED

DELAYS_S = (5.0, 300.0, 1800.0, 7200.0, 18000.0, 36000.0, 50400.0, 72000.0, 86400.0)
"""Pauses between the attempts, as Standard Webhooks recommends; after the last attempt semel gives up."""

_HELD_S = 60.0
"""A process that takes a delivery holds it for this long."""


@dataclass(frozen=True)
class Delivery:
    """A webhook that is due. The process that took it holds it until `held_until`, Unix seconds."""

    job_id: str
    url: str
    attempts: int
    held_until: float


class WebhookStore:
    """Webhooks by job id; a job has at most one."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def add(self, job_id: str, url: str) -> None:
        """Call `url` when this job has ended."""
        with self._db.write() as conn:
            conn.execute(webhooks.insert().values(job_id=job_id, url=url, attempts=0, due_at=0.0))

    def take_due(self, *, limit: int) -> list[Delivery]:
        """Take due deliveries of jobs that have ended; no other process gets them for a minute."""
        now = self._db.now()
        due = (
            select(webhooks.c.job_id)
            .join(jobs, jobs.c.id == webhooks.c.job_id)
            .where(webhooks.c.due_at <= now, jobs.c.status.in_(ENDED))
            .limit(limit)
        )
        with self._db.read() as conn:
            if conn.execute(due.limit(1)).first() is None:
                return []
        until = now + _HELD_S
        with self._db.write(reserve=True) as conn:
            taken = conn.execute(
                update(webhooks)
                .where(webhooks.c.job_id.in_(due), webhooks.c.due_at <= now)
                .values(due_at=until)
                .returning(webhooks.c.job_id, webhooks.c.url, webhooks.c.attempts)
            ).all()
        return [Delivery(row.job_id, row.url, row.attempts, until) for row in taken]

    def delivered(self, delivery: Delivery) -> None:
        """Record that the delivery arrived."""
        self._settle(delivery, due_at=None, error=None)

    def failed(self, delivery: Delivery, error: str, *, for_good: bool = False) -> float | None:
        """Record a failed attempt. Returns the seconds until the next one, or None if there is none.

        Args:
            for_good: make no further attempt.
        """
        delay_s = None if for_good or delivery.attempts >= len(DELAYS_S) else DELAYS_S[delivery.attempts]
        self._settle(delivery, due_at=None if delay_s is None else self._db.now() + delay_s, error=error)
        return delay_s

    def _settle(self, delivery: Delivery, *, due_at: float | None, error: str | None) -> None:
        values = {"attempts": delivery.attempts + 1, "due_at": due_at, "last_error": error}
        with self._db.write(reserve=True) as conn:
            # If a retry of the job has made it due again in the meantime, this delivery must not settle it.
            held = (webhooks.c.job_id == delivery.job_id) & (webhooks.c.due_at == delivery.held_until)
            conn.execute(update(webhooks).where(held).values(values))
