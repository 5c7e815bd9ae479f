"""Moves jobs to another kind of device, and marks jobs that no worker serves."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, and_, select, update

from semel.db import Database
from semel.tasks.jobs.rows import ACTIVE, ChunkState
from semel.tasks.jobs.schema import chunks, jobs


@dataclass(frozen=True)
class JobGroup:
    """The active jobs of one model and vector space on one kind of device: they stay or move together."""

    device: str
    model: str
    fingerprint: bytes

    @property
    def rows(self) -> ColumnElement[bool]:
        """The condition on `jobs` that selects them."""
        return and_(
            jobs.c.status.in_(ACTIVE),
            jobs.c.device == self.device,
            jobs.c.model == self.model,
            jobs.c.fingerprint == self.fingerprint,
        )


class JobMoves:
    """Moves groups of jobs. Repeating a move changes nothing."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def active(self) -> list[tuple[JobGroup, str]]:
        """Every group that has an active job, with the device that its jobs were first sent to."""
        columns = (jobs.c.device, jobs.c.first_device, jobs.c.fingerprint, jobs.c.model)
        with self._db.read() as conn:
            found = conn.execute(select(*columns).where(jobs.c.status.in_(ACTIVE)).distinct()).all()
        return [(JobGroup(row.device, row.model, row.fingerprint), row.first_device or row.device) for row in found]

    def move(self, group: JobGroup, to: str, why: str, *, first: str | None = None) -> int:
        """Move a group to another kind of device; returns how many jobs moved.

        Args:
            why: the reason, shown to people.
            first: move only the jobs that were first sent to this device.
        """
        which = group.rows if first is None else group.rows & (jobs.c.first_device == first)
        with self._db.write(reserve=True) as conn:
            moved = update(jobs).where(which).values(device=to, why=why, waits=False).returning(jobs.c.id)
            ids = list(conn.execute(moved).scalars())
            # The lease of a running chunk ends by itself; the message of a sent chunk is in the wrong queue.
            sent = and_(chunks.c.job_id.in_(ids), chunks.c.state == ChunkState.SENT)
            conn.execute(update(chunks).where(sent).values(state=ChunkState.PENDING))
        return len(ids)

    def wait(self, group: JobGroup, why: str) -> None:
        """Record that no live worker serves a group; writes nothing if that is recorded already."""
        changed = group.rows & ((jobs.c.why != why) | ~jobs.c.waits)
        with self._db.read() as conn:
            if conn.execute(select(jobs.c.id).where(changed).limit(1)).first() is None:
                return
        with self._db.write(reserve=True) as conn:
            conn.execute(update(jobs).where(group.rows).values(why=why, waits=True))

    def failing(self, group: JobGroup) -> Sequence[str]:
        """Ids of the jobs in a group that must fail, and not wait, when no worker serves them."""
        with self._db.read() as conn:
            fails = group.rows & (jobs.c.if_no_worker == "fail")
            return list(conn.execute(select(jobs.c.id).where(fails)).scalars())
