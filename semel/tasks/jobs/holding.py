"""Which vectors jobs hold: `semel cache prune` spares those that a job needs until it expires."""

from collections.abc import Iterator

from sqlalchemy import Connection, func, or_, select, tuple_

from semel.clock import time_of
from semel.db import Database
from semel.tasks.jobs.schema import chunks, jobs


class Holding:
    """The keys that unexpired jobs need, and those jobs."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def needed_keys(self, conn: Connection, since: float = 0.0) -> Iterator[bytes]:
        """The packed keys of every job that has not expired, for `prune` to spare; read in its transaction.

        Args:
            since: only of jobs that received texts, or were retried, after this time (Unix seconds).
        """
        place = tuple_(chunks.c.job_id, chunks.c.position)
        query = (
            select(chunks.c.job_id, chunks.c.position, chunks.c.packed_keys)
            .join(jobs, jobs.c.id == chunks.c.job_id)
            .where(jobs.c.expires_at > time_of(conn))
            .where(or_(jobs.c.touched_at >= since, jobs.c.retried_at >= since))
            .order_by(chunks.c.job_id, chunks.c.position)
            .limit(256)
        )
        last = ("", -1)
        while rows := conn.execute(query.where(place > last)).all():
            yield from (row.packed_keys for row in rows)
            last = (rows[-1].job_id, rows[-1].position)

    def holders(self, *, limit: int, fingerprint: bytes | None = None) -> tuple[list[str], int]:
        """The newest jobs whose vectors `prune` spares, and the number of all of them.

        Args:
            fingerprint: only jobs of this vector space.
        """
        held = [jobs.c.expires_at > self._db.now()]
        if fingerprint is not None:
            held.append(func.coalesce(jobs.c.variant_fingerprint, jobs.c.fingerprint) == fingerprint)
        newest = select(jobs.c.id).where(*held).order_by(jobs.c.created_at.desc()).limit(limit)
        with self._db.read() as conn:
            count = conn.execute(select(func.count()).select_from(jobs).where(*held)).scalar_one()
            return list(conn.execute(newest).scalars()), count
