"""The vector store: rows by key, in plurals, on SQLite or PostgreSQL."""

import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from sqlalchemy import Connection, bindparam, delete, func, select, text
from sqlalchemy.dialects import postgresql, sqlite

from semel.cache.codec import DTYPES, checksum, decode_into, encode, has_size
from semel.cache.schema import producers, spaces, vectors
from semel.db import Database
from semel.errors import InvalidVectorError
from semel.log import get_log
from semel.values import Found, Producer, Space, Vectors, sound_rows

log = get_log("cache")

_SLICE_KEYS = 512
"""Keys in one SELECT. 500 to 1000 was fastest on SQLite; the limit is 32,766 parameters."""

ExportedRow: TypeAlias = tuple[bytes, int, bool, int, bytes]
"""Key, tokens, truncated, checksum, encoded vector."""

IMPORTED = Producer("elsewhere", "import", "float32")
"""What made a vector that was not computed here."""

_SPACE_COLUMNS = ("fingerprint", "model", "prompt_name", "dim", "max_tokens", "precision", "spec_json")

_VECTOR_COLUMNS = "key, tokens, truncated, crc, data"
_LOOKUP_COLUMNS = "key, tokens, truncated"


@dataclass(frozen=True)
class SpaceStats:
    """What the cache holds of one space. Times are Unix seconds.

    Attributes:
        weights: SHA-256 of the model's weights, in hex: which revision of it this is.
        bytes: of the vectors, without the database's own.
        lookups, hits: texts that the APIs looked up, and how many of them were there.
        saved_s: device time that the hits would have cost.
        used_at: when an API last looked something up; None before that.
    """

    fingerprint: str
    model: str
    prompt_name: str
    weights: str
    dim: int
    precision: str
    entries: int
    bytes: int
    oldest_at: float | None
    newest_at: float | None
    lookups: int
    hits: int
    saved_s: float
    used_at: float | None


@dataclass(frozen=True)
class Growth:
    """Vectors of a space that were stored in the span that begins at `at`, Unix seconds."""

    fingerprint: str
    at: float
    entries: int


@dataclass(frozen=True)
class Verified:
    """What `verify` read, and the keys of the rows that are damaged."""

    entries: int
    damaged: list[bytes]


class VectorStore:
    """Vectors by key. Thread-safe; any number of processes may write to one database.

    Args:
        db: where.
        dtype: `float32`, or `float16` to halve the bytes of what is stored from now on; scores stay float32.

    Attributes:
        damaged, pruned: since the start, rows that reading or `verify` found damaged, and that `prune` deleted.
    """

    def __init__(self, db: Database, *, dtype: str = "float32") -> None:
        self._db = db
        self._dtype = dtype
        self._ids: dict[Any, int] = {}
        self.damaged, self.pruned = 0, 0
        self._lock = threading.Lock()

    # Reading

    def get_many(self, keys: Sequence[bytes], *, dim: int) -> Found:
        """Read vectors: row i of the answer belongs to `keys[i]`, present or not, repeated or not.

        A damaged row is deleted, logged and reported as not present, so that it is computed again.

        Args:
            keys: 32 bytes each; order and duplicates are kept.
            dim: length of the vectors of this space.
        """
        rows, damaged = self._read(keys, _VECTOR_COLUMNS, dim)
        if damaged:
            self._count_damaged(len(damaged))
            self._drop_damaged(damaged)
        return rows

    def lookup(self, keys: Sequence[bytes]) -> Found:
        """As `get_many`, without the vectors and without reading them."""
        return self._read(keys, _LOOKUP_COLUMNS, None)[0]

    def lookup_on(self, conn: Connection, keys: Sequence[bytes]) -> Found:
        """As `lookup`, inside a transaction that is open already."""
        return self._read(keys, _LOOKUP_COLUMNS, None, on=conn)[0]

    def present(self, keys: Sequence[bytes]) -> set[bytes]:
        """Those of `keys` that have a row."""
        found: set[bytes] = set()
        with self._db.read() as conn:
            for part in _slices(list(keys)):
                found.update(row[0] for row in self._fetch(conn, "key", part))
        return found

    def _read(
        self, keys: Sequence[bytes], columns: str, dim: int | None, *, on: Connection | None = None
    ) -> tuple[Found, list[Any]]:
        first_row: dict[bytes, int] = {}
        for row, key in enumerate(keys):
            first_row.setdefault(key, row)
        n = len(keys)
        present = np.zeros(n, np.bool_)
        tokens = np.zeros(n, np.int32)
        truncated = np.zeros(n, np.bool_)
        values = None if dim is None else np.full((n, dim), np.nan, np.float32)
        damaged: list[Any] = []
        single = len(first_row) <= _SLICE_KEYS
        with self._db.read(single=single) if on is None else nullcontext(on) as conn:
            for part in _slices(list(first_row)):
                rows = self._fetch(conn, columns, part)
                if values is not None:
                    rows = _sound(rows, values.shape[1], damaged)
                if not rows:
                    continue
                found = list(zip(*rows, strict=True))
                where = [first_row[key] for key in found[0]]
                present[where] = True
                tokens[where] = found[1]
                truncated[where] = found[2]
                if values is not None:
                    decode_into(values, where, found[4])
        if len(first_row) < n:  # repeat the rows of repeated keys
            source = [first_row[key] for key in keys]
            present, tokens, truncated = present[source], tokens[source], truncated[source]
            values = None if values is None else values[source]
        return Found(present, tokens, truncated, values), damaged

    def _fetch(self, conn: Connection, columns: str, keys: Sequence[bytes]) -> list[Any]:
        """Rows as plain tuples: building SQLAlchemy's Row objects would cost a fifth of a warm look-up."""
        if self._db.dialect == "postgresql":
            statement, parameters = f"SELECT {columns} FROM vectors WHERE key = ANY(%s)", (list(keys),)
            rows = conn.exec_driver_sql(statement, parameters).cursor
        else:
            marks = ",".join("?" * len(keys))
            rows = conn.exec_driver_sql(f"SELECT {columns} FROM vectors WHERE key IN ({marks})", tuple(keys)).cursor
        assert rows is not None  # a SELECT has a cursor
        return list(rows.fetchall())

    def _count_damaged(self, rows: int) -> None:
        with self._lock:
            self.damaged += rows

    def _drop_damaged(self, rows: list[Any]) -> None:
        """Delete these very rows: one that was stored anew in the meantime has another checksum."""
        for key, *_ in rows:
            log.error("damaged row dropped, it will be computed again", key=key.hex())
        with self._db.write(reserve=True) as conn:
            statement = delete(vectors).where(
                vectors.c.key == bindparam("k"), vectors.c.crc == bindparam("c"), vectors.c.data == bindparam("d")
            )
            conn.execute(statement, [{"k": row[0], "c": row[3], "d": row[4]} for row in rows])

    # Writing

    def put_many(
        self,
        space: Space,
        keys: Sequence[bytes],
        values: Vectors,
        *,
        tokens: Sequence[int],
        truncated: Sequence[bool],
        producer: Producer,
    ) -> int:
        """Store vectors in one transaction; a key that has a row keeps it. Returns how many were new.

        Args:
            values: float32 (len(keys), space.dim).

        Raises:
            InvalidVectorError: NaN, infinity, zero or a wrong size; nothing of the call is stored.
            StorageFullError: no room; nothing of the call is stored.
        """
        blobs = encode(values, dim=space.dim, dtype=self._dtype if space.dim > 1 else "float32")
        rows = [
            (key, int(count), bool(cut), checksum(key, blob), blob)
            for key, count, cut, blob in zip(keys, tokens, truncated, blobs, strict=True)
        ]
        return self._insert(space, rows, producer)

    def put_rows(self, space: Space, given: Sequence[ExportedRow], *, producer: Producer) -> int:
        """Store rows that are encoded already, as `export` gives them, in one transaction. Returns how many were new.

        Raises:
            InvalidVectorError: a row is damaged; nothing of the call is stored.
            StorageFullError: no room; nothing of the call is stored.
        """
        for row in given:
            if not _is_sound(row, space.dim):
                raise InvalidVectorError(f"the row with key {row[0].hex()} is damaged; it is not stored")
        return self._insert(space, given, producer)

    def _insert(self, space: Space, given: Sequence[ExportedRow], producer: Producer) -> int:
        space_id, producer_id = self.space_id(space), self._producer_id(producer)
        now = time.time()
        rows = [(key, space_id, producer_id, now, *rest) for key, *rest in given]
        rows.sort()  # all writers lock rows in one order: no deadlock on PostgreSQL, better locality on SQLite
        mark = "%s" if self._db.dialect == "postgresql" else "?"
        statement = (
            "INSERT INTO vectors (key, space_id, producer_id, created_at, tokens, truncated, crc, data) "
            f"VALUES ({', '.join([mark] * 8)}) ON CONFLICT DO NOTHING"
        )
        with self._db.write() as conn:
            return conn.exec_driver_sql(statement, rows).rowcount

    def space_id(self, space: Space) -> int:
        """The row id of a space, registered when it is new."""
        row = {**{name: getattr(space, name) for name in _SPACE_COLUMNS}, "created_at": time.time()}
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

    # Moving

    def export(self, fingerprint: bytes) -> Iterator[list[ExportedRow]]:
        """The rows of a space, a few at a time, by key."""
        last = b""
        columns = (vectors.c.key, vectors.c.tokens, vectors.c.truncated, vectors.c.crc, vectors.c.data)
        of_space = vectors.c.space_id.in_(select(spaces.c.id).where(spaces.c.fingerprint == fingerprint))
        while True:
            query = select(*columns).where(of_space, vectors.c.key > last).order_by(vectors.c.key)
            query = query.limit(_SLICE_KEYS * 4)
            with self._db.read() as conn:
                rows: list[ExportedRow] = [tuple(row) for row in conn.execute(query)]
            if not rows:
                return
            last = rows[-1][0]
            yield rows

    def has_space(self, fingerprint: str) -> bool:
        """Whether there ever was a vector of this space; in hex."""
        with self._db.read() as conn:
            known = conn.execute(select(spaces.c.fingerprint)).scalars()
            return fingerprint in {found.hex() for found in known}

    def space_of(self, fingerprint: bytes) -> Space:
        """The space of one of `stats`."""
        with self._db.read() as conn:
            row = conn.execute(select(spaces).where(spaces.c.fingerprint == fingerprint)).one()
        return Space(**{name: getattr(row, name) for name in _SPACE_COLUMNS})

    # Looking after

    def stats(self) -> list[SpaceStats]:
        """Entries and bytes by space, the largest first."""
        counted = (
            select(
                vectors.c.space_id,
                func.count().label("entries"),
                func.min(vectors.c.created_at).label("oldest"),
                func.max(vectors.c.created_at).label("newest"),
                func.sum(func.length(vectors.c.data)).label("bytes"),
            )
            .group_by(vectors.c.space_id)
            .subquery()
        )
        query = select(spaces, counted).join_from(spaces, counted, counted.c.space_id == spaces.c.id)
        with self._db.read() as conn:
            rows = conn.execute(query).all()
        found = [
            SpaceStats(
                fingerprint=row.fingerprint.hex(),
                model=row.model,
                prompt_name=row.prompt_name,
                weights=json.loads(row.spec_json)["weights"],
                dim=row.dim,
                precision=row.precision,
                entries=row.entries,
                bytes=row.bytes,
                oldest_at=row.oldest,
                newest_at=row.newest,
                lookups=row.lookups,
                hits=row.hits,
                saved_s=row.saved_s,
                used_at=row.used_at,
            )
            for row in rows
        ]
        return sorted(found, key=lambda s: -s.bytes)

    def growth(self, *, span_s: float) -> list[Growth]:
        """How many of the vectors that are here now were stored in each span of time, the oldest first."""
        at = func.round(vectors.c.created_at / span_s - 0.5).label("at")  # floor, on every database
        query = select(vectors.c.space_id, at, func.count().label("entries")).group_by(vectors.c.space_id, at)
        named = query.subquery()
        columns = (spaces.c.fingerprint, named.c.at, named.c.entries)
        with self._db.read() as conn:
            rows = conn.execute(
                select(*columns).join_from(named, spaces, spaces.c.id == named.c.space_id).order_by(named.c.at)
            )
            return [Growth(row.fingerprint.hex(), float(row.at) * span_s, row.entries) for row in rows]

    def verify(self, *, repair: bool = False) -> Iterator[Verified]:
        """Read every row and check size, checksum and numbers; yields the state so far after each slice.

        Args:
            repair: delete the damaged rows, so that they are computed again when somebody asks.
        """
        seen, damaged, last = 0, list[bytes](), b""
        dims = self._dims()
        while True:
            query = (
                select(vectors.c.key, vectors.c.space_id, vectors.c.truncated, vectors.c.crc, vectors.c.data)
                .where(vectors.c.key > last)
                .order_by(vectors.c.key)
                .limit(_SLICE_KEYS * 4)
            )
            with self._db.read() as conn:
                rows = [tuple(row) for row in conn.execute(query)]
            if not rows:
                yield Verified(seen, damaged)
                return
            bad = [row for row in rows if not _is_sound(row, dims.get(row[1], 0))]
            damaged += [row[0] for row in bad]
            self._count_damaged(len(bad))
            if repair and bad:
                self._drop_damaged(bad)
            seen, last = seen + len(rows), rows[-1][0]
            yield Verified(seen, damaged)

    def _dims(self) -> dict[int, int]:
        with self._db.read() as conn:
            return {row.id: row.dim for row in conn.execute(select(spaces.c.id, spaces.c.dim))}

    def prune(
        self,
        *,
        keep: Callable[[Connection], Iterable[bytes]],
        max_bytes: int | None = None,
        older_than_s: float | None = None,
        fingerprint: bytes | None = None,
        dry_run: bool = False,
    ) -> int:
        """Delete vectors, the oldest first, and return how many; never one of `keep`.

        What goes meets every condition: with `fingerprint` the other two look at that space alone.

        Args:
            keep: reads the packed keys (32 bytes each, joined) that unexpired jobs still need, on the transaction's own
                connection, after the lock, so that a job submitted meanwhile is safe.
            max_bytes: delete until the vectors take no more than this.
            older_than_s: delete what was computed longer ago than this.
            fingerprint: delete in this space only; alone, the whole space.
            dry_run: count only.
        """
        if dry_run:
            with self._db.read() as conn:  # nobody has to wait for a count
                _fill_keep(conn, keep(conn))
                doomed = _doomed(conn, max_bytes, older_than_s, fingerprint)
                return conn.execute(select(func.count()).select_from(doomed.subquery())).scalar_one()
        with self._db.write(reserve=True) as conn:
            if self._db.dialect == "postgresql":
                conn.exec_driver_sql("LOCK TABLE chunks IN EXCLUSIVE MODE")
            _fill_keep(conn, keep(conn))
            doomed = _doomed(conn, max_bytes, older_than_s, fingerprint)
            gone = conn.execute(delete(vectors).where(vectors.c.key.in_(doomed))).rowcount
            conn.exec_driver_sql("DROP TABLE prune_keep")  # it may be large, and the connection stays
        with self._lock:
            self.pruned += gone
        return gone


def _slices(keys: list[bytes]) -> Iterator[list[bytes]]:
    return (keys[at : at + _SLICE_KEYS] for at in range(0, len(keys), _SLICE_KEYS))


def _sound(rows: list[Any], dim: int, damaged: list[Any]) -> list[Any]:
    """The rows whose size and checksum are right; the others are added to `damaged`."""
    bad = [row for row in rows if checksum(row[0], row[4]) != row[3] or not has_size(row[4], dim=dim)]
    if not bad:
        return rows
    damaged += bad
    keys = {row[0] for row in bad}
    return [row for row in rows if row[0] not in keys]


def _is_sound(row: tuple[Any, ...], dim: int) -> bool:
    key, _, _, crc, data = row
    if checksum(key, data) != crc or not has_size(data, dim=dim):
        return False
    dtype = next(d for d in DTYPES.values() if len(data) == dim * d.itemsize)
    return bool(sound_rows(np.frombuffer(data, dtype).reshape(1, dim).astype(np.float32))[0])


def _fill_keep(conn: Connection, keep: Iterable[bytes]) -> None:
    """A temporary table of the keys that must stay: a job of millions does not go through Python's memory."""
    kind = "BYTEA" if conn.dialect.name == "postgresql" else "BLOB"
    conn.exec_driver_sql("DROP TABLE IF EXISTS prune_keep")
    conn.exec_driver_sql(f"CREATE TEMPORARY TABLE prune_keep (key {kind} PRIMARY KEY)")
    statement = text("INSERT INTO prune_keep (key) VALUES (:key) ON CONFLICT DO NOTHING")
    for packed in keep:
        rows = [{"key": packed[at : at + 32]} for at in range(0, len(packed), 32)]
        if rows:
            conn.execute(statement, rows)


def _doomed(conn: Connection, max_bytes: int | None, older_than_s: float | None, fingerprint: bytes | None) -> Any:
    """A SELECT of the keys to delete."""
    scope: list[Any] = []
    if fingerprint is not None:
        scope.append(vectors.c.space_id.in_(select(spaces.c.id).where(spaces.c.fingerprint == fingerprint)))
    unneeded = text("NOT EXISTS (SELECT 1 FROM prune_keep k WHERE k.key = vectors.key)")
    query = select(vectors.c.key).where(unneeded, *scope)
    if older_than_s is not None:
        query = query.where(vectors.c.created_at < time.time() - older_than_s)
    if max_bytes is None:
        return query
    total = conn.execute(select(func.coalesce(func.sum(func.length(vectors.c.data)), 0)).where(*scope)).scalar_one()
    size = func.length(vectors.c.data)
    before = func.sum(size).over(order_by=(vectors.c.created_at, vectors.c.key)) - size
    ranked = query.add_columns(before.label("before")).subquery()
    return select(ranked.c.key).where(ranked.c.before < total - max_bytes)
