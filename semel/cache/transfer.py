"""Moves a vector space between caches as a Parquet file: keys, encoded vectors, and the space in the header."""

import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from sqlalchemy import select

from semel.atomic_write import atomic_write
from semel.cache.schema import spaces, vectors
from semel.cache.store import IMPORTED, SPACE_COLUMNS, StoredRow, VectorStore
from semel.db import Database
from semel.errors import BadInputError, InvalidVectorError
from semel.values.model import Space

_HEADER = b"semel.space"

_SCHEMA = pa.schema(
    [
        ("key", pa.binary(32)),
        ("tokens", pa.int32()),
        ("truncated", pa.bool_()),
        ("crc", pa.int64()),
        ("data", pa.binary()),
    ]
)

_SLICE = 2048


def export_space(db: Database, space: Space, path: Path) -> Iterator[int]:
    """Write every vector of a space to `path`; yields the number written so far. A failed export leaves no file.

    Raises:
        OSError: the folder does not exist, or has no room.
    """
    fields = {name: getattr(space, name) for name in SPACE_COLUMNS}
    header = json.dumps({**fields, "fingerprint": space.fingerprint.hex()})
    count = 0
    with atomic_write(path) as file, pq.ParquetWriter(file, _SCHEMA.with_metadata({_HEADER: header})) as writer:
        for rows in _rows(db, space.fingerprint):
            columns = [
                pa.array(column, field.type) for column, field in zip(zip(*rows, strict=True), _SCHEMA, strict=True)
            ]
            writer.write_batch(pa.record_batch(columns, schema=_SCHEMA))
            count += len(rows)
            yield count


def _rows(db: Database, fingerprint: bytes) -> Iterator[list[StoredRow]]:
    """The rows of a space in slices, ordered by key."""
    of_space = vectors.c.space_id.in_(select(spaces.c.id).where(spaces.c.fingerprint == fingerprint))
    columns = (vectors.c.key, vectors.c.tokens, vectors.c.truncated, vectors.c.crc, vectors.c.data)
    query = select(*columns).where(of_space).order_by(vectors.c.key).limit(_SLICE)
    last = b""
    while True:
        with db.read() as conn:
            rows: list[StoredRow] = [tuple(row) for row in conn.execute(query.where(vectors.c.key > last))]
        if not rows:
            return
        last = rows[-1][0]
        yield rows


def exported_space(path: Path) -> Space | None:
    """The space of a file that `export_space` wrote; None for any other Parquet file.

    Raises:
        BadInputError: the file is not a Parquet file.
    """
    try:
        header = (pq.read_schema(path).metadata or {}).get(_HEADER)
    except (pa.ArrowException, OSError) as error:
        raise BadInputError(f"{path}: not a Parquet file: {error}") from None
    if header is None:
        return None
    fields = json.loads(header)
    return Space(**{**fields, "fingerprint": bytes.fromhex(fields["fingerprint"])})


def import_space(store: VectorStore, space: Space, path: Path) -> Iterator[tuple[int, int]]:
    """Store the vectors of an exported file; yields (stored, read) so far. Keys that have a vector keep it.

    Raises:
        BadInputError: a row is damaged; the slices before it are stored.
    """
    stored = read = 0
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=_SLICE):
            rows = list(zip(*(batch.column(name).to_pylist() for name in _SCHEMA.names), strict=True))
            try:
                stored += store.put_rows(space, rows, producer=IMPORTED)
            except InvalidVectorError as error:
                raise BadInputError(f"{path}: {error}; export it again") from None
            read += len(rows)
            yield stored, read
