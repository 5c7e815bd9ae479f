"""The vector store: reads and writes many rows at once by key, on SQLite or PostgreSQL."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from itertools import compress
from typing import Any, TypeAlias

import numpy as np
from sqlalchemy import Connection, select
from sqlalchemy.dialects import postgresql, sqlite

from semel.cache import codec, statements
from semel.cache.codec import checksum, decode_into, encode, has_size
from semel.cache.joint_writes import JointWrites
from semel.cache.schema import producers, spaces
from semel.cache.statements import Columns
from semel.db import Database
from semel.errors import InvalidVectorError
from semel.log import get_log
from semel.values.model import Producer, Space
from semel.values.sparse import SPARSE_DIM
from semel.values.vectors import AnyVectors, Found, empty_rows

log = get_log("cache")

SLICE_KEYS = 512
"""Keys in one SELECT. 500 to 1000 were fastest on SQLite, which allows at most 32,766 parameters."""

StoredRow: TypeAlias = tuple[bytes, int, bool, int, bytes]
"""Key, tokens, truncated, checksum, encoded vector."""

IMPORTED = Producer("elsewhere", "import", "float32")
"""The producer of a vector that was not computed here."""

SPACE_COLUMNS = ("fingerprint", "model", "prompt_name", "dim", "max_tokens", "precision", "spec_json")


class VectorStore:
    """Vectors by key. Thread-safe; any number of processes may write to one database.

    Args:
        db: holds the vectors.
        dtype: `float32`, or `float16` to store new vectors in half the bytes; scores are always float32.

    Attributes:
        damaged: number of rows that reading or `verify` found damaged since the start.
    """

    def __init__(self, db: Database, *, dtype: str = "float32") -> None:
        self._db = db
        self._dtype = dtype
        self._writes = JointWrites(db)
        self._ids: dict[Any, int] = {}
        self.damaged = 0
        self._lock = threading.Lock()

    # Reading

    def get_many(self, keys: Sequence[bytes], *, dim: int) -> Found:
        """Read vectors; row i of the result belongs to `keys[i]`, whether the key is present, missing or repeated.

        A damaged row is deleted, logged and reported as missing, so that it is computed again.

        Args:
            keys: 32 bytes each; order and duplicates are kept.
            dim: length of the vectors of this space; 0 for sparse ones.
        """
        rows, damaged = self._read(keys, dim)
        if damaged:
            self.count_damaged(len(damaged))
            self.drop(damaged)
        return rows

    def lookup(self, keys: Sequence[bytes]) -> Found:
        """Like `get_many`, but the vectors are neither read nor returned."""
        return self._read(keys, None)[0]

    def lookup_on(self, conn: Connection, keys: Sequence[bytes]) -> Found:
        """Like `lookup`, inside a transaction that is already open."""
        return self._read(keys, None, on=conn)[0]

    def present(self, keys: Sequence[bytes]) -> set[bytes]:
        """The subset of `keys` that have a row."""
        found: set[bytes] = set()
        with self._db.read() as conn:
            for part in _slices(list(keys)):
                found.update(*statements.select(conn, part, columns=1))
        return found

    def _read(self, keys: Sequence[bytes], dim: int | None, *, on: Connection | None = None) -> tuple[Found, list[Any]]:
        """The rows of some keys, with their vectors unless `dim` is None; and those of these rows that are damaged."""
        first_row: dict[bytes, int] = {}
        for row, key in enumerate(keys):
            first_row.setdefault(key, row)
        n = len(keys)
        present = np.zeros(n, np.bool_)
        tokens = np.zeros(n, np.int32)
        truncated = np.zeros(n, np.bool_)
        values = None if dim is None else empty_rows(n, dim)
        damaged: list[Any] = []
        single = len(first_row) <= SLICE_KEYS
        with self._db.read(single=single) if on is None else nullcontext(on) as conn:
            for part in _slices(list(first_row)):
                found = statements.select(conn, part, columns=3 if dim is None else 5)
                if dim is not None and found and not all(_soundness(found, dim)):
                    found = _undamaged(statements.select(conn, part, columns=5, whole=False), dim, damaged)
                if not found:
                    continue
                targets = [first_row[key] for key in found[0]]
                present[targets] = True
                tokens[targets] = found[1]
                truncated[targets] = found[2]
                if values is not None:
                    decode_into(values, targets, found[4])
        if len(first_row) < n:  # repeat the results of repeated keys
            source = [first_row[key] for key in keys]
            present, tokens, truncated = present[source], tokens[source], truncated[source]
            values = None if values is None else values[source]
        return Found(present, tokens, truncated, values), damaged

    def count_damaged(self, rows: int) -> None:
        """Add a number of rows to `damaged`."""
        with self._lock:
            self.damaged += rows

    def drop(self, rows: Sequence[StoredRow]) -> None:
        """Delete exactly these rows: a key that was stored again in the meantime has other bytes, and keeps them."""
        for key, *_ in rows:
            log.error("damaged row deleted; the next request computes it again", key=key.hex())
        with self._db.write(reserve=True) as conn:
            statements.delete(conn, [(row[0], row[3], row[4]) for row in rows])

    # Writing

    def dtype_of(self, space: Space) -> str:
        """The name of the type in which vectors of this space are stored; logits stay float32."""
        return self._dtype if space.kind in ("embed", "sparse") else "float32"

    def keeps_exactly(self, space: Space) -> bool:
        """Whether a float32 vector comes back with the same bits as it was stored."""
        return space.dim != SPARSE_DIM and self.dtype_of(space) == "float32"

    def put_many(
        self,
        space: Space,
        keys: Sequence[bytes],
        values: AnyVectors,
        *,
        tokens: Sequence[int],
        truncated: Sequence[bool],
        producer: Producer,
    ) -> int:
        """Store vectors in one transaction; a key that has a row keeps it. Returns the number of new rows.

        Args:
            values: float32 (len(keys), space.dim), or sparse.
            tokens, truncated: one for each key; see `Found`.

        Raises:
            InvalidVectorError: a vector is NaN, infinite, zero or of the wrong size; nothing of the call is stored.
            StorageFullError: the database is full; nothing of the call is stored.
        """
        blobs = encode(values, dim=space.dim, dtype=self.dtype_of(space))
        rows = [
            (key, int(count), bool(cut), checksum(key, blob), blob)
            for key, count, cut, blob in zip(keys, tokens, truncated, blobs, strict=True)
        ]
        return self._insert(space, rows, producer)

    def put_rows(self, space: Space, rows: Sequence[StoredRow], *, producer: Producer) -> int:
        """Store rows that are already encoded, in one transaction. Returns the number of new rows.

        Raises:
            InvalidVectorError: a row is damaged; nothing of the call is stored.
            StorageFullError: the database is full; nothing of the call is stored.
        """
        for row in rows:
            if not is_sound(row, space.dim):
                raise InvalidVectorError(f"the row with key {row[0].hex()} is damaged; it is not stored")
        return self._insert(space, rows, producer)

    def _insert(self, space: Space, stored: Sequence[StoredRow], producer: Producer) -> int:
        space_id, producer_id = self.space_id(space), self._producer_id(producer)
        created_at = self._db.now()
        rows = [(key, space_id, producer_id, created_at, *rest) for key, *rest in stored]
        rows.sort()  # all writers lock rows in one order: no deadlock on PostgreSQL, better locality on SQLite
        columns = ("key", "space_id", "producer_id", "created_at", *statements.COLUMNS[1:])
        return self._writes.run(lambda conn: statements.insert(conn, columns, rows))

    def space_id(self, space: Space) -> int:
        """The row id of a space; the row is inserted if the space is new."""
        row = {**{name: getattr(space, name) for name in SPACE_COLUMNS}, "created_at": self._db.now()}
        return self._id_of(spaces, ("fingerprint",), row)

    def _producer_id(self, producer: Producer) -> int:
        row = {"device": producer.device, "backend": producer.backend, "dtype": producer.dtype}
        return self._id_of(producers, ("device", "backend", "dtype"), row)

    def _id_of(self, table: Any, unique: tuple[str, ...], row: dict[str, Any]) -> int:
        identity = (table.name, *(row[name] for name in unique))
        if identity not in self._ids:
            dialect = postgresql if self._db.dialect == "postgresql" else sqlite
            with self._db.write() as conn:
                conn.execute(dialect.insert(table).on_conflict_do_nothing(), row)
                query = select(table.c.id).where(*(table.c[name] == row[name] for name in unique))
                found: int = conn.execute(query).scalar_one()
            self._ids[identity] = found  # after the commit: a rolled-back id must not be remembered
        return self._ids[identity]


def _slices(keys: list[bytes]) -> Iterator[list[bytes]]:
    return (keys[at : at + SLICE_KEYS] for at in range(0, len(keys), SLICE_KEYS))


def _soundness(found: Columns, dim: int) -> Iterator[bool]:
    """For each row, whether it has the right size and checksum."""
    keys, _, _, checksums, blobs = found
    for key, crc, data in zip(keys, checksums, blobs, strict=True):
        yield _fits(key, crc, data) and has_size(data, dim=dim)


def _fits(key: bytes, crc: int, data: Any) -> bool:
    """Whether the checksum is that of key and data; SQLite lets damage turn a BLOB into a text."""
    return isinstance(data, bytes) and checksum(key, data) == crc


def _undamaged(found: Columns, dim: int, damaged: list[Any]) -> Columns:
    """The rows without damage; the others are appended to `damaged`."""
    sound = list(_soundness(found, dim)) if found else []
    rows = list(zip(*found, strict=True))
    damaged += [row for row, is_good in zip(rows, sound, strict=True) if not is_good]
    return list(zip(*compress(rows, sound), strict=True))


def is_sound(row: Sequence[Any], dim: int) -> bool:
    """Whether size, checksum and values of a `StoredRow` are right."""
    key, _, _, crc, data = row
    return _fits(key, crc, data) and codec.is_sound(data, dim=dim)
