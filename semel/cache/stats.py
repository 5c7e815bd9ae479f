"""What the cache holds: counts by space, growth over time, and a check of every row."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select

from semel.cache.schema import spaces, vectors
from semel.cache.store import SLICE_KEYS, SPACE_COLUMNS, VectorStore, is_sound
from semel.db import Database
from semel.values.model import Space


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


class CacheStats:
    """Counts what the cache holds; changes nothing."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def by_space(self) -> list[SpaceStats]:
        """Every space that has vectors, the largest first."""
        counted = (
            select(
                vectors.c.space_id,
                func.count().label("entries"),
                func.min(vectors.c.created_at).label("oldest_at"),
                func.max(vectors.c.created_at).label("newest_at"),
                func.sum(func.length(vectors.c.data)).label("bytes"),
            )
            .group_by(vectors.c.space_id)
            .subquery()
        )
        query = select(spaces, counted).join_from(spaces, counted, counted.c.space_id == spaces.c.id)
        with self._db.read() as conn:
            rows = conn.execute(query).all()
        return sorted((_stats(row) for row in rows), key=lambda s: -s.bytes)

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

    def has_space(self, fingerprint: str) -> bool:
        """Whether there ever was a vector of this space; in hex."""
        with self._db.read() as conn:
            known = conn.execute(select(spaces.c.fingerprint)).scalars()
            return fingerprint in {found.hex() for found in known}

    def space_of(self, fingerprint: bytes) -> Space:
        """The space of one of `stats`."""
        with self._db.read() as conn:
            row = conn.execute(select(spaces).where(spaces.c.fingerprint == fingerprint)).one()
        return Space(**{name: getattr(row, name) for name in SPACE_COLUMNS})


def _stats(row: Any) -> SpaceStats:
    own = {"fingerprint": row.fingerprint.hex(), "weights": json.loads(row.spec_json)["weights"]}
    same = {name: getattr(row, name) for name in SpaceStats.__dataclass_fields__ if name not in own}
    return SpaceStats(**own, **same)


def verify(db: Database, store: VectorStore, *, repair: bool = False) -> Iterator[Verified]:
    """Read every row and check size, checksum and numbers; yields the state so far after each slice.

    Args:
        repair: delete the damaged rows, so that they are computed again when they are asked for.
    """
    with db.read() as conn:
        dims = {row.id: row.dim for row in conn.execute(select(spaces.c.id, spaces.c.dim))}
    columns = (vectors.c.key, vectors.c.space_id, vectors.c.truncated, vectors.c.crc, vectors.c.data)
    query = select(*columns).order_by(vectors.c.key).limit(SLICE_KEYS * 4)
    seen, damaged, last = 0, list[bytes](), b""
    while True:
        with db.read() as conn:
            rows = [tuple(row) for row in conn.execute(query.where(vectors.c.key > last))]
        if not rows:
            yield Verified(seen, damaged)
            return
        bad = [row for row in rows if not is_sound(row, dims.get(row[1], 0))]
        damaged += [row[0] for row in bad]
        store.count_damaged(len(bad))
        if repair and bad:
            store.drop(bad)
        seen, last = seen + len(rows), rows[-1][0]
        yield Verified(seen, damaged)
