"""The ledger: the syncs, their collections, and the documents in each."""

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, delete, func, select, update

from semel.clock import time_of
from semel.db import Database
from semel.errors import ConflictError, NotFoundError
from semel.sync.ledger.documents import Documents
from semel.sync.ledger.fenced import Fenced, insert_into
from semel.sync.ledger.records import CHUNK_BYTES, Collection, Sync, SyncRun
from semel.sync.ledger.schema import sync_collections, sync_documents, sync_runs, syncs

_DELETED_AT_A_TIME = 5000
"""Documents that one transaction deletes: others may write in between."""

_KEPT_RUNS = 100
"""Runs of a sync whose reports are kept."""


class Ledger:
    """The syncs in a database. Thread-safe.

    Args:
        db: SQLite or PostgreSQL.
        owner: the run that holds the lease of the sync it writes to; every write checks it. None only reads.
    """

    def __init__(self, db: Database, *, owner: str | None = None) -> None:
        self._db = db
        self._owner = owner

    # Syncs

    def open(self, name: str, source: str, sink: str) -> None:
        """Record a sync that is new, or that follows another source from now on.

        The sink of a sync that has no collection yet may change, too.

        Raises:
            ConflictError: another sync writes to this sink.
        """
        with self._db.write() as conn:
            other = conn.execute(select(syncs.c.name).where((syncs.c.sink == sink) & (syncs.c.name != name))).scalar()
            if other is not None:
                raise ConflictError(
                    f"sync {other!r} writes to {sink}; two of them in one index would delete each other's documents"
                )
            row = {"name": name, "source": source, "sink": sink, "created_at": time_of(conn)}
            insert = insert_into(self._db, syncs).values(row)
            conn.execute(insert.on_conflict_do_update(index_elements=["name"], set_={"source": source}))
            collections = select(sync_collections.c.id).where(sync_collections.c.sync == name)
            conn.execute(update(syncs).where((syncs.c.name == name) & ~collections.exists()).values(sink=sink))

    def sync(self, name: str) -> Sync:
        """The sync of this name. Raises NotFoundError."""
        with self._db.read() as conn:
            return self._sync_on(conn, name)

    def syncs(self) -> list[Sync]:
        """All syncs, by name."""
        with self._db.read() as conn:
            now = time_of(conn)
            return [_sync(row, now) for row in conn.execute(select(syncs).order_by(syncs.c.name))]

    def _sync_on(self, conn: Connection, name: str) -> Sync:
        row = conn.execute(select(syncs).where(syncs.c.name == name)).first()
        if row is None:
            raise NotFoundError("sync", name)
        return _sync(row, time_of(conn))

    def forget_sync(self, name: str) -> None:
        """Delete a sync with everything that the ledger knows of it; its collections must be dropped before."""
        with self._write(name) as conn:
            conn.execute(delete(sync_runs).where(sync_runs.c.sync == name))
            conn.execute(delete(syncs).where(syncs.c.name == name))

    def now(self) -> float:
        """The time of the database, in Unix seconds."""
        return self._db.now()

    # Leases

    def take_lease(self, name: str, *, seconds: float) -> bool:
        """Take or renew the lease of a sync. Returns whether this owner holds it now."""
        with self._db.write() as conn:
            now = time_of(conn)
            free = (syncs.c.lease_until < now) | (syncs.c.lease_owner == self._owner)
            taken = update(syncs).where((syncs.c.name == name) & free)
            return conn.execute(taken.values(lease_owner=self._owner, lease_until=now + seconds)).rowcount == 1

    def release(self, name: str) -> None:
        """End the lease, if this owner still holds it."""
        with self._db.write(reserve=True) as conn:
            mine = (syncs.c.name == name) & (syncs.c.lease_owner == self._owner)
            conn.execute(update(syncs).where(mine).values(lease_owner=None, lease_until=0.0))

    def _write(self, name: str) -> Fenced:
        return Fenced(self._db, name, self._owner)

    def within(self, collection: Collection) -> Documents:
        """The documents of a collection."""
        return Documents(self._db, collection, owner=self._owner)

    # Collections

    def collections(self, name: str) -> list[Collection]:
        """The collections of a sync with their sizes, the oldest first."""
        documents = select(
            sync_documents.c.collection_id,
            func.count().label("documents"),
            func.sum(func.length(sync_documents.c.chunks)).label("bytes"),
        ).group_by(sync_documents.c.collection_id)
        sizes = documents.subquery()
        query = (
            select(sync_collections, sizes.c.documents, sizes.c.bytes)
            .outerjoin(sizes, sizes.c.collection_id == sync_collections.c.id)
            .where(sync_collections.c.sync == name)
            .order_by(sync_collections.c.id)
        )
        with self._db.read() as conn:
            return [_collection(row) for row in conn.execute(query)]

    def add_collection(
        self, sync: str, name: str, *, model: str, fingerprint: bytes, dim: int, spec: Mapping[str, Any]
    ) -> int:
        """Record a new collection. Returns its id."""
        with self._write(sync) as conn:
            row = {"sync": sync, "name": name, "model": model, "fingerprint": fingerprint, "dim": dim}
            row |= {"spec_json": _json(spec), "created_at": time_of(conn)}
            return int(conn.execute(sync_collections.insert().returning(sync_collections.c.id), row).scalar_one())

    def mark_changing(self, collection: Collection) -> None:
        """Record that documents of a collection are split or kept in another way from now on, until `mark_filled`."""
        with self._write(collection.sync) as conn:
            this = update(sync_collections).where(sync_collections.c.id == collection.id)
            conn.execute(this.values(spec_json="{}"))

    def mark_filled(self, collection: Collection, spec: Mapping[str, Any]) -> None:
        """Record that a collection is in step with its source, split by `spec`."""
        with self._write(collection.sync) as conn:
            this = update(sync_collections).where(sync_collections.c.id == collection.id)
            conn.execute(this.values(spec_json=_json(spec), filled_at=time_of(conn), retired_at=None))

    def mark_serving(self, collection: Collection) -> None:
        """Record that a collection answers now, and that the others are retired."""
        with self._write(collection.sync) as conn:
            conn.execute(update(syncs).where(syncs.c.name == collection.sync).values(serving=collection.id))
            others = (sync_collections.c.sync == collection.sync) & (sync_collections.c.id != collection.id)
            unretired = others & sync_collections.c.retired_at.is_(None) & sync_collections.c.filled_at.is_not(None)
            conn.execute(update(sync_collections).where(unretired).values(retired_at=time_of(conn)))
            conn.execute(update(sync_collections).where(sync_collections.c.id == collection.id).values(retired_at=None))

    def forget_documents(self, collection: Collection) -> None:
        """Delete all documents of a collection, in bounded transactions."""
        deleted = 1
        while deleted:
            with self._write(collection.sync) as conn:
                mine = sync_documents.c.collection_id == collection.id
                some = select(sync_documents.c.key).where(mine).limit(_DELETED_AT_A_TIME).scalar_subquery()
                deleted = conn.execute(delete(sync_documents).where(mine & sync_documents.c.key.in_(some))).rowcount

    def forget_collection(self, collection: Collection) -> None:
        """Delete a collection with its documents."""
        self.forget_documents(collection)
        with self._write(collection.sync) as conn:
            conn.execute(delete(sync_collections).where(sync_collections.c.id == collection.id))

    # Runs

    def begin_run(self, sync: str, collection_id: int | None, report: Mapping[str, Any]) -> int:
        """Record a run that starts. Returns its id."""
        with self._write(sync) as conn:
            old = select(sync_runs.c.id).where(sync_runs.c.sync == sync).order_by(sync_runs.c.id.desc())
            kept = old.limit(_KEPT_RUNS).scalar_subquery()
            conn.execute(delete(sync_runs).where((sync_runs.c.sync == sync) & sync_runs.c.id.not_in(kept)))
            lost = (sync_runs.c.sync == sync) & (sync_runs.c.outcome == "running")
            conn.execute(update(sync_runs).where(lost).values(outcome="failed", ended_at=time_of(conn)))
            row = {"sync": sync, "collection_id": collection_id, "outcome": "running", "started_at": time_of(conn)}
            insert = sync_runs.insert().returning(sync_runs.c.id)
            return int(conn.execute(insert, {**row, "report_json": _json(report)}).scalar_one())

    def record_run(self, run_id: int, outcome: str, report: Mapping[str, Any]) -> None:
        """Record how far a run is, or how it ended."""
        with self._db.write(reserve=True) as conn:
            ended = None if outcome == "running" else time_of(conn)
            this = update(sync_runs).where(sync_runs.c.id == run_id)
            conn.execute(this.values(outcome=outcome, ended_at=ended, report_json=_json(report)))

    def runs(self, sync: str, *, limit: int = 10) -> list[SyncRun]:
        """The last runs of a sync, the newest first."""
        query = select(sync_runs).where(sync_runs.c.sync == sync).order_by(sync_runs.c.id.desc()).limit(limit)
        with self._db.read() as conn:
            return [
                SyncRun(r.id, r.sync, r.collection_id, r.outcome, r.started_at, r.ended_at, json.loads(r.report_json))
                for r in conn.execute(query)
            ]


def _sync(row: Any, now: float) -> Sync:
    running = row.lease_owner is not None and row.lease_until >= now
    return Sync(row.name, row.source, row.sink, row.serving, running, row.created_at)


def _collection(row: Any) -> Collection:
    return Collection(
        row.id,
        row.sync,
        row.name,
        row.model,
        row.fingerprint,
        row.dim,
        json.loads(row.spec_json),
        row.created_at,
        row.filled_at,
        row.retired_at,
        row.documents or 0,
        (row.bytes or 0) // CHUNK_BYTES,
    )


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=True, sort_keys=True)
