"""When each API key was last used: kept in memory, and written to the database from time to time."""

import time
from collections.abc import Mapping

from sqlalchemy import case, select
from sqlalchemy.dialects import postgresql, sqlite

from semel.db import Database
from semel.tasks.jobs.schema import key_use


class KeyUse:
    """Times by key, Unix seconds of the API's clock. Thread-safe; several processes write to the same rows."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._used: dict[str, float] = {}

    def used(self, owner: str) -> None:
        """Note that a request had this key."""
        self._used[owner] = time.time()

    def last(self) -> Mapping[str, float]:
        """Owner → when its key was last used, as far as this process and the database know."""
        with self._db.read() as conn:
            known = {row.owner: float(row.used_at) for row in conn.execute(select(key_use))}
        here = dict(self._used)
        return {owner: max(known.get(owner, 0.0), here.get(owner, 0.0)) for owner in {*known, *here}}

    def write(self) -> None:
        """Add what is new to the database; after an error, the next call does it."""
        new = dict(self._used)
        if not new:
            return
        dialect = postgresql if self._db.dialect == "postgresql" else sqlite
        insert = dialect.insert(key_use)
        later = case((insert.excluded.used_at > key_use.c.used_at, insert.excluded.used_at), else_=key_use.c.used_at)
        upsert = insert.on_conflict_do_update(index_elements=["owner"], set_={"used_at": later})
        with self._db.write() as conn:
            conn.execute(upsert, [{"owner": owner, "used_at": at} for owner, at in sorted(new.items())])
        for owner, at in new.items():
            if self._used.get(owner) == at:
                del self._used[owner]
