"""Idempotency keys: a submission that is repeated gives the job of the first one.

A key is reserved when a submission starts and sealed with a digest of what was sent when it is complete. Keys are
kept for a day, as Stripe keeps them.
"""

import time
from dataclasses import dataclass

from sqlalchemy import select, update
from sqlalchemy.dialects import postgresql, sqlite

from semel.db import Database
from semel.errors import ConflictError
from semel.tasks.jobs.schema import idempotency_keys as keys
from semel.tasks.jobs.schema import jobs

KEPT_S = 86400.0
RESERVED_S = 3600.0
"""A submission that was cut off by a crash blocks its key for this long at the most."""


@dataclass(frozen=True)
class Earlier:
    """A complete submission under the same key."""

    job_id: str
    digest: bytes


class IdempotencyKeys:
    """Keys that clients chose."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def reserve(self, key: str, *, owner: str) -> Earlier | None:
        """Take a key for a new submission; or what was submitted under it.

        Args:
            owner: names this submission; one that lost its reservation cannot touch that of another.

        Raises:
            ConflictError: a submission under this key is under way.
        """
        now = time.time()
        insert = (postgresql if self._db.dialect == "postgresql" else sqlite).insert(keys)
        with self._db.write() as conn:
            conn.execute(keys.delete().where(keys.c.created_at < now - KEPT_S))
            conn.execute(keys.delete().where(keys.c.digest.is_(None), keys.c.created_at < now - RESERVED_S))
            deleted = keys.c.job_id.is_not(None) & keys.c.job_id.not_in(select(jobs.c.id))
            conn.execute(keys.delete().where(keys.c.key == key, deleted))
            new = insert.values(key=key, owner=owner, created_at=now).on_conflict_do_nothing().returning(keys.c.key)
            if conn.execute(new).first() is not None:
                return None
            row = conn.execute(select(keys).where(keys.c.key == key)).first()
        if row is None or row.digest is None:  # none: it was released between the two statements
            raise ConflictError(f"a submission with Idempotency-Key {key!r} is under way; send it again when it ended")
        return Earlier(row.job_id, row.digest)

    def seal(self, key: str, *, owner: str, job_id: str, digest: bytes) -> None:
        """The submission is complete."""
        with self._db.write(reserve=True) as conn:
            conn.execute(
                update(keys).where(keys.c.key == key, keys.c.owner == owner).values(job_id=job_id, digest=digest)
            )

    def release(self, key: str, *, owner: str) -> None:
        """The submission was refused or cut off: the key is free again."""
        with self._db.write(reserve=True) as conn:
            conn.execute(keys.delete().where(keys.c.key == key, keys.c.owner == owner, keys.c.digest.is_(None)))
