"""Idempotency keys: a repeated submission returns the job of the first one.

A key is reserved when a submission starts, and sealed with a digest of the submission in the transaction that makes its
job complete: there is never one without the other. Keys are kept for a day, as Stripe does.
"""

import hashlib
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, select, update
from sqlalchemy.dialects import postgresql, sqlite

from semel.clock import time_of
from semel.db import Database
from semel.errors import ConflictError
from semel.tasks.jobs.schema import idempotency_keys as keys
from semel.tasks.jobs.schema import jobs

KEPT_S = 86400.0
"""How long a key is kept after its submission started."""

RESERVED_S = 120.0
"""A submission that a crash cut off blocks its key for this long. One that is under way renews its reservation."""


@dataclass(frozen=True)
class Earlier:
    """A complete submission under the same key.

    Attributes:
        digest: SHA-256 of the submission.
    """

    job_id: str
    digest: bytes


@dataclass(frozen=True)
class Reservation:
    """A key that is reserved for a submission under way.

    Attributes:
        key: as it is stored.
        owner: identifies this submission: one that lost its reservation cannot change that of another.
        digest: returns the SHA-256 of what has arrived of the submission.
    """

    key: str
    owner: str
    digest: Callable[[], bytes]

    def seal(self, conn: Connection, job_id: str) -> None:
        """Record that the submission is complete; without effect if it has lost its reservation."""
        conn.execute(update(keys).where(_held(self)).values(job_id=job_id, digest=self.digest()))


class IdempotencyKeys:
    """The keys that clients chose for their submissions."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._namespace = ""

    def within(self, namespace: str) -> "IdempotencyKeys":
        """The keys of a namespace: two namespaces may use the same ones."""
        scoped = copy(self)
        scoped._namespace = namespace
        return scoped

    def _stored(self, key: str) -> str:
        """The key as it is stored, at most 255 characters."""
        if not self._namespace:
            return key
        return "namespace:" + hashlib.sha256(f"{self._namespace}\0{key}".encode()).hexdigest()

    def reserve(self, key: str, *, owner: str, digest: Callable[[], bytes]) -> Reservation | Earlier:
        """Reserve a key for a new submission, or return the earlier submission under this key.

        Args:
            owner, digest: of the submission; see `Reservation`.

        Raises:
            ConflictError: another submission under this key is under way.
        """
        stored = self._stored(key)
        insert = (postgresql if self._db.dialect == "postgresql" else sqlite).insert(keys)
        with self._db.write() as conn:
            now = time_of(conn)
            conn.execute(keys.delete().where(keys.c.created_at < now - KEPT_S))
            conn.execute(keys.delete().where(keys.c.digest.is_(None), keys.c.created_at < now - RESERVED_S))
            deleted = keys.c.job_id.is_not(None) & keys.c.job_id.not_in(select(jobs.c.id))
            conn.execute(keys.delete().where(keys.c.key == stored, deleted))
            new = insert.values(key=stored, owner=owner, created_at=now).on_conflict_do_nothing().returning(keys.c.key)
            if conn.execute(new).first() is not None:
                return Reservation(stored, owner, digest)
            row = conn.execute(select(keys).where(keys.c.key == stored)).first()
        if row is None or row.digest is None:  # no row: it was released after the insert
            raise ConflictError(
                f"a submission with Idempotency-Key {key!r} is under way; repeat the request when it has ended"
            )
        return Earlier(row.job_id, row.digest)

    def renew(self, reservation: Reservation) -> None:
        """Record that the submission is still under way."""
        with self._db.write(reserve=True) as conn:
            conn.execute(update(keys).where(_held(reservation)).values(created_at=time_of(conn)))

    def release(self, reservation: Reservation) -> None:
        """Free the key of a submission that was refused or cut off; a sealed key stays."""
        with self._db.write(reserve=True) as conn:
            conn.execute(keys.delete().where(_held(reservation), keys.c.digest.is_(None)))


def _held(reservation: Reservation) -> ColumnElement[bool]:
    return (keys.c.key == reservation.key) & (keys.c.owner == reservation.owner)
