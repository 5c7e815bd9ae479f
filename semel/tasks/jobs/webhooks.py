"""Who wants to be told that a job has ended, and what became of telling them."""

import time
from dataclasses import dataclass

from sqlalchemy import select, update

from semel.db import Database
from semel.tasks.jobs.schema import jobs, webhooks
from semel.values.job import ENDED

DELAYS_S = (5.0, 300.0, 1800.0, 7200.0, 18000.0, 36000.0, 50400.0, 72000.0, 86400.0)
"""Between the attempts, as Standard Webhooks recommends; after the last one it is given up."""

_HELD_S = 60.0
"""Who takes a delivery has it for this long."""


@dataclass(frozen=True)
class Delivery:
    """A webhook that is due, held by whoever took it until `held_until`."""

    job_id: str
    url: str
    attempts: int
    held_until: float


class WebhookStore:
    """One webhook a job at the most."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def add(self, job_id: str, url: str) -> None:
        """Tell `url` when this job has ended."""
        with self._db.write() as conn:
            conn.execute(webhooks.insert().values(job_id=job_id, url=url, attempts=0, due_at=0.0))

    def take_due(self, *, limit: int) -> list[Delivery]:
        """Deliveries of jobs that have ended; nobody else gets them for a minute."""
        now = time.time()
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
        """It arrived."""
        self._settle(delivery, due_at=None, error=None)

    def failed(self, delivery: Delivery, error: str, *, for_good: bool = False) -> float | None:
        """It did not. Returns the seconds until the next attempt, or None when it is given up."""
        delay_s = None if for_good or delivery.attempts >= len(DELAYS_S) else DELAYS_S[delivery.attempts]
        self._settle(delivery, due_at=None if delay_s is None else time.time() + delay_s, error=error)
        return delay_s

    def _settle(self, delivery: Delivery, *, due_at: float | None, error: str | None) -> None:
        values = {"attempts": delivery.attempts + 1, "due_at": due_at, "last_error": error}
        with self._db.write(reserve=True) as conn:
            # A retry of the job has made it due again meanwhile: then this delivery settles nothing.
            held = (webhooks.c.job_id == delivery.job_id) & (webhooks.c.due_at == delivery.held_until)
            conn.execute(update(webhooks).where(held).values(values))
