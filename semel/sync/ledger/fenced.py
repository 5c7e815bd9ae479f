"""Transactions of a run that still holds its lease."""

from typing import Any

from sqlalchemy import Connection, select
from sqlalchemy.dialects import postgresql, sqlite

from semel.db import Database
from semel.errors import ConflictError
from semel.sync.ledger.schema import syncs


class Fenced:
    """A transaction that first checks that its run still holds the lease. Raises ConflictError if it does not."""

    def __init__(self, db: Database, name: str, owner: str | None) -> None:
        self._transaction = db.write()
        self._name, self._owner = name, owner

    def __enter__(self) -> Connection:
        conn = self._transaction.__enter__()
        try:
            # The row is locked until the commit, so that nobody takes the lease meanwhile.
            query = select(syncs.c.lease_owner).where(syncs.c.name == self._name).with_for_update()
            if self._owner is None or conn.execute(query).scalar() != self._owner:
                raise ConflictError(
                    f"this run of sync {self._name!r} was silent for too long, so another one may have taken over; "
                    "nothing more is written. Run it again"
                )
        except BaseException as error:
            self._transaction.__exit__(type(error), error, error.__traceback__)
            raise
        return conn

    def __exit__(self, *error: Any) -> bool | None:
        return self._transaction.__exit__(*error)


def insert_into(db: Database, table: Any) -> Any:
    """An INSERT that can have an ON CONFLICT."""
    return (sqlite if db.dialect == "sqlite" else postgresql).insert(table)
