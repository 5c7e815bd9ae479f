"""A table of LanceDB: `lancedb:FOLDER/NAME`, a folder of this machine.

A collection is a table of its own. `NAME` is a symbolic link to the one that answers, which LanceDB opens as a table.
"""

from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa

from semel.errors import BadInputError, NotFoundError, UnavailableError
from semel.sync.document import Payload
from semel.sync.sinks.base import Keeps, Layout, Match, Rows, check_where
from semel.sync.sinks.columns import from_columns, payload_columns, schema_of
from semel.sync.sinks.links import point_at, pointed_at
from semel.values.vectors import Vectors

_AT_A_TIME = 1000
"""Ids in one filter."""

_INDEXED_ROWS = 50_000
"""LanceDB compares every vector below this: it needs some tens of thousands to train an index, and takes
milliseconds without one."""


class LanceSink:
    """Tables in one folder.

    Args:
        path: the folder, and the name of the link.

    Raises:
        UnavailableError: lancedb is not installed.
    """

    def __init__(self, path: Path) -> None:
        try:
            import lancedb
        except ImportError:
            raise UnavailableError("LanceDB needs pip install 'semel[lancedb]'") from None
        self._folder = path.parent
        self._link = path.with_name(f"{path.name}.lance")
        self._folder.mkdir(parents=True, exist_ok=True)
        self._db = lancedb.connect(str(self._folder))

    def open(self, name: str, layout: Layout, *, make: bool = False) -> "LanceCollection":
        """See `Sink`."""
        schema = schema_of(layout)
        exists = (self._folder / f"{name}.lance").exists()
        if not exists and not make:
            raise NotFoundError("table", name)
        table = self._db.open_table(name) if exists else self._db.create_table(name, schema=schema)
        missing = [field for field in schema if field.name not in table.schema.names]
        if missing:  # the payload has more fields than before
            table.add_columns(missing)
        kept = table.schema.field("vector").type
        if kept != pa.list_(pa.float32(), layout.dim):
            raise BadInputError(f"table {name!r} in {self._folder} has vectors of type {kept}; choose another name")
        return LanceCollection(table, layout)

    def serving(self) -> str | None:
        """See `Sink`."""
        name = pointed_at(self._link)
        return None if name is None else name.removesuffix(".lance")

    def serve(self, name: str) -> None:
        """See `Sink`."""
        point_at(self._link, f"{name}.lance")

    def drop(self, name: str) -> None:
        """See `Sink`."""
        if self.serving() == name:
            self._link.unlink()
        self._db.drop_table(name, ignore_missing=True)

    def close(self) -> None:
        """See `Sink`."""


class LanceCollection:
    """One table; see `SinkCollection`."""

    keeps: Keeps = "float32"

    def __init__(self, table: Any, layout: Layout) -> None:
        self._table = table
        self._layout = layout

    def write(self, rows: Rows) -> None:
        """See `SinkCollection`."""
        columns = payload_columns(rows, rows.vectors, self._layout)
        schema = schema_of(self._layout)
        if rows.vectors is None:
            schema = schema.remove(schema.get_field_index("vector"))
        merge = self._table.merge_insert("id").when_matched_update_all()
        if rows.vectors is not None:
            merge = merge.when_not_matched_insert_all()
        try:
            merge.execute(pa.table(columns, schema=schema))
        except (OSError, RuntimeError, ValueError) as error:
            raise UnavailableError(f"LanceDB did not store {len(rows)} rows: {error}") from None

    def delete(self, ids: Sequence[UUID]) -> None:
        """See `SinkCollection`."""
        for part in _slices(ids):
            self._table.delete(_in(part))

    def read(self, ids: Sequence[UUID] | None = None) -> Iterator[tuple[list[UUID], Vectors | None]]:
        """See `SinkCollection`."""
        if ids is None:
            for batch in self._table.search().select(["id"]).to_batches():
                yield [UUID(each) for each in batch["id"].to_pylist()], None
            return
        for part in _slices(ids):
            found = self._table.search().where(_in(part)).select(["id", "vector"]).limit(len(part)).to_arrow()
            flat = found["vector"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
            rows = np.asarray(flat, np.float32).reshape(-1, self._layout.dim)
            yield [UUID(each) for each in found["id"].to_pylist()], rows

    def search(self, vector: Vectors, *, k: int, where: Payload) -> list[Match]:
        """See `SinkCollection`."""
        check_where(where, self._layout.payload)
        query = self._table.search(vector, vector_column_name="vector").distance_type("cosine").limit(k)
        if where:
            query = query.where(" AND ".join(f"{_name(name)} = {_quoted(str(value))}" for name, value in where.items()))
        return [from_columns(row, self._layout, 1.0 - row["_distance"]) for row in query.to_list()]

    def finish(self) -> None:
        """Join the small files that the run wrote, and build or extend the indexes. Old versions stay for an hour."""
        from lancedb.index import BTree, IvfPq

        names = {each.name for each in self._table.list_indices()}
        if self._table.count_rows():
            if "id_idx" not in names:
                self._table.create_index("id", config=BTree())
            if "vector_idx" not in names and self._table.count_rows() >= _INDEXED_ROWS:
                self._table.create_index("vector", config=IvfPq(distance_type="cosine"))
        self._table.optimize(cleanup_older_than=timedelta(hours=1))


def _slices(ids: Sequence[UUID]) -> Iterator[Sequence[UUID]]:
    return (ids[at : at + _AT_A_TIME] for at in range(0, len(ids), _AT_A_TIME))


def _in(ids: Sequence[UUID]) -> str:
    return f"id IN ({', '.join(_quoted(str(each)) for each in ids)})"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _name(column: str) -> str:
    return "`" + column.replace("`", "``") + "`"
