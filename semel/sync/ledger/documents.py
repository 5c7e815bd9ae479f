"""The documents of one collection."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import bindparam, delete, func, select, update

from semel.db import Database
from semel.sync.ledger.fenced import Fenced, insert_into
from semel.sync.ledger.records import Collection, KnownDocument, Written
from semel.sync.ledger.schema import sync_documents

_SLICE = 500
"""Documents in one statement; SQLite allows 32,766 parameters."""

_COLUMNS = [sync_documents.c[name] for name in ("id", "version", "content", "payload", "chunks", "pending")]
"""As the fields of `KnownDocument`."""


def document_key(document_id: str) -> bytes:
    """The key of a document in a collection: 16 bytes, whatever the length of its id."""
    return hashlib.blake2b(document_id.encode(), digest_size=16).digest()


class Documents:
    """What the ledger knows of the documents of a collection. Thread-safe.

    Args:
        db: SQLite or PostgreSQL.
        collection: theirs.
        owner: the run that holds the lease of the sync; see `Ledger`.
    """

    def __init__(self, db: Database, collection: Collection, *, owner: str | None) -> None:
        self._db = db
        self._collection = collection
        self._owner = owner

    def _write(self) -> Fenced:
        return Fenced(self._db, self._collection.sync, self._owner)

    def known(self, ids: Sequence[str]) -> dict[str, KnownDocument]:
        """Id → document, for those of `ids` that the collection has."""
        found: dict[str, KnownDocument] = {}
        theirs = sync_documents.c.collection_id == self._collection.id
        with self._db.read() as conn:
            for at in range(0, len(ids), _SLICE):
                keys = [document_key(each) for each in ids[at : at + _SLICE]]
                query = select(*_COLUMNS).where(theirs & sync_documents.c.key.in_(keys))
                found.update((row[0], KnownDocument(*row)) for row in conn.execute(query))
        return found

    def all(self) -> Iterator[list[KnownDocument]]:
        """All documents of a collection, in parts."""
        after = b""
        while rows := self._after(after, *_COLUMNS):
            yield [KnownDocument(*row[1:]) for row in rows]
            after = rows[-1][0]

    def identities(self) -> Iterator[tuple[bytes, str, bytes]]:
        """Key, id and content of all documents."""
        after = b""
        while rows := self._after(after, sync_documents.c.id, sync_documents.c.content):
            yield from ((key, document, content) for key, document, content in rows)
            after = rows[-1][0]

    def _after(self, key: bytes, *columns: Any) -> Sequence[Any]:
        """Some rows in the order of their keys, each with its key."""
        query = (
            select(sync_documents.c.key, *columns)
            .where((sync_documents.c.collection_id == self._collection.id) & (sync_documents.c.key > key))
            .order_by(sync_documents.c.key)
            .limit(4 * _SLICE)
        )
        with self._db.read() as conn:
            return conn.execute(query).all()

    def intend(self, chunks: Mapping[str, int]) -> None:
        """Record that documents are about to have this many chunks: from now on the index may hold either state."""
        empty = {"version": None, "content": bytes(32), "payload": bytes(8), "chunks": b""}
        rows = [
            {"collection_id": self._collection.id, "key": document_key(each), "id": each, "pending": count, **empty}
            for each, count in chunks.items()
        ]
        insert = insert_into(self._db, sync_documents)
        older = sync_documents.c.pending
        most = func.max if self._db.dialect == "sqlite" else func.greatest
        pending = most(func.coalesce(older, 0), insert.excluded.pending)
        self._upsert(insert, rows, {"pending": pending})

    def confirm(self, documents: Sequence[Written]) -> None:
        """Record that the index holds exactly these documents."""
        rows = [
            {
                "collection_id": self._collection.id,
                "key": document_key(each.id),
                "id": each.id,
                "version": each.version,
                "content": each.content,
                "payload": each.payload,
                "chunks": each.chunks,
                "pending": None,
            }
            for each in documents
        ]
        insert = insert_into(self._db, sync_documents)
        names = ("version", "content", "payload", "chunks", "pending")
        self._upsert(insert, rows, {name: insert.excluded[name] for name in names})

    def _upsert(self, insert: Any, rows: list[dict[str, Any]], changed: dict[str, Any]) -> None:
        if rows:
            statement = insert.on_conflict_do_update(index_elements=["collection_id", "key"], set_=changed)
            with self._write() as conn:
                conn.execute(statement, rows)

    def set_versions(self, versions: Mapping[str, str | None]) -> None:
        """Record newer versions of documents that are the same; None has them read by the next run."""
        rows = [{"k": document_key(each), "v": version} for each, version in versions.items()]
        if rows:
            same = (sync_documents.c.collection_id == self._collection.id) & (sync_documents.c.key == bindparam("k"))
            with self._write() as conn:
                conn.execute(update(sync_documents).where(same).values(version=bindparam("v")), rows)

    def forget(self, ids: Sequence[str]) -> None:
        """Delete documents that the index no longer holds."""
        with self._write() as conn:
            for at in range(0, len(ids), _SLICE):
                keys = [document_key(each) for each in ids[at : at + _SLICE]]
                gone = (sync_documents.c.collection_id == self._collection.id) & sync_documents.c.key.in_(keys)
                conn.execute(delete(sync_documents).where(gone))
