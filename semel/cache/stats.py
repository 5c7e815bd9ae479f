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
    """The contents and the use of one space. Times are Unix seconds.

    Attributes:
        weights: SHA-256 of the model's weights, in hex; it identifies the model's revision.
        entries: number of vectors.
        bytes: size of the vectors, without the database's overhead.
        lookups: texts that API processes looked up.
        hits: the look-ups that found a vector.
        saved_s: device time that the hits would have cost.
        used_at: when an API process last looked up a text; None before the first look-up.
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
    """The number of vectors of a space that were stored in the span of time that begins at `at`, Unix seconds."""

    fingerprint: str
    at: float
    entries: int


@dataclass(frozen=True)
class Verified:
    """The number of rows that `verify` has read, and the keys of the damaged ones."""

    entries: int
    damaged: list[bytes]


class CacheStats:
    """Counts what the cache holds; changes nothing."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def by_space(self) -> list[SpaceStats]:
        """Statistics for every space that has vectors, the one with the most bytes first."""
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
        """Count the vectors that exist now by the span of time in which they were stored, the oldest span first."""
        at = func.round(vectors.c.created_at / span_s - 0.5).label("at")  # floor, on every database
        query = select(vectors.c.space_id, at, func.count().label("entries")).group_by(vectors.c.space_id, at)
        counted = query.subquery()
        columns = (spaces.c.fingerprint, counted.c.at, counted.c.entries)
        with self._db.read() as conn:
            rows = conn.execute(
                select(*columns).join_from(counted, spaces, spaces.c.id == counted.c.space_id).order_by(counted.c.at)
            )
            return [Growth(row.fingerprint.hex(), float(row.at) * span_s, row.entries) for row in rows]

    def has_space(self, fingerprint: str) -> bool:
        """Whether a vector of this space (its fingerprint in hex) was ever stored."""
        with self._db.read() as conn:
            known = conn.execute(select(spaces.c.fingerprint)).scalars()
            return fingerprint in {found.hex() for found in known}

    def space_of(self, fingerprint: bytes) -> Space:
        """The space with this fingerprint, which must be one that `by_space` reported."""
        with self._db.read() as conn:
            row = conn.execute(select(spaces).where(spaces.c.fingerprint == fingerprint)).one()
        return Space(**{name: getattr(row, name) for name in SPACE_COLUMNS})


def _stats(row: Any) -> SpaceStats:
    derived = {"fingerprint": row.fingerprint.hex(), "weights": json.loads(row.spec_json)["weights"]}
    copied = {name: getattr(row, name) for name in SpaceStats.__dataclass_fields__ if name not in derived}
    return SpaceStats(**derived, **copied)


def verify(db: Database, store: VectorStore, *, repair: bool = False) -> Iterator[Verified]:
    """Read every row and check its size, checksum and values; yields the state so far after each slice.

    Args:
        store: counts the damaged rows.
        repair: delete the damaged rows, so that the next request for them computes them again.
    """
    columns = (vectors.c.key, vectors.c.tokens, vectors.c.truncated, vectors.c.crc, vectors.c.data, spaces.c.dim)
    query = select(*columns).outerjoin(spaces, spaces.c.id == vectors.c.space_id)
    query = query.order_by(vectors.c.key).limit(SLICE_KEYS * 4)
    seen, damaged, last = 0, list[bytes](), b""
    while True:
        with db.read() as conn:
            rows = [tuple(row) for row in conn.execute(query.where(vectors.c.key > last))]
        if not rows:
            yield Verified(seen, damaged)
            return
        bad = [row[:5] for row in rows if row[5] is None or not is_sound(row[:5], row[5])]
        damaged += [row[0] for row in bad]
        store.count_damaged(len(bad))
        if repair and bad:
            store.drop(bad)
        seen, last = seen + len(rows), rows[-1][0]
        yield Verified(seen, damaged)
