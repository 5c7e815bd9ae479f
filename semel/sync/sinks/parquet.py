"""A folder of Parquet files: `parquet:FOLDER/NAME`.

A collection is a folder of parts, by the first digit of the rows' ids. What a run writes goes to `_changes` first,
which readers of Parquet leave out; `finish` writes each part that has changes anew. `NAME` is a symbolic link to the
collection that answers.
"""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from semel.atomic_write import atomic_write
from semel.errors import BadInputError, NotFoundError
from semel.sync.document import Payload
from semel.sync.sinks.base import Keeps, Layout, Match, Rows, check_where, vectors_of
from semel.sync.sinks.columns import from_columns, payload_columns, schema_of
from semel.sync.sinks.links import point_at, pointed_at
from semel.values.vectors import Vectors, cosines

_CHANGES = "_changes"

PARTS = "0123456789abcdef"
"""Ids are spread evenly, so that a part has a sixteenth of the rows."""


class ParquetSink:
    """Collections as folders next to each other.

    Args:
        path: the link that readers open; the collections are in its folder.
    """

    def __init__(self, path: Path) -> None:
        self._link = path
        self._folder = path.parent

    def open(self, name: str, layout: Layout, *, make: bool = False) -> "ParquetCollection":
        """See `Sink`."""
        if not make and not (self._folder / name).is_dir():
            raise NotFoundError("folder", str(self._folder / name))
        (self._folder / name / _CHANGES).mkdir(parents=True, exist_ok=True)
        return ParquetCollection(self._folder / name, layout)

    def serving(self) -> str | None:
        """See `Sink`."""
        return pointed_at(self._link)

    def serve(self, name: str) -> None:
        """See `Sink`."""
        point_at(self._link, name)

    def drop(self, name: str) -> None:
        """See `Sink`."""
        if self.serving() == name:
            self._link.unlink()
        shutil.rmtree(self._folder / name, ignore_errors=True)

    def close(self) -> None:
        """See `Sink`."""


class ParquetCollection:
    """One folder of parts; see `SinkCollection`."""

    keeps: Keeps = "float32"

    def __init__(self, folder: Path, layout: Layout) -> None:
        self._folder = folder
        self._layout = layout
        self._schema = schema_of(layout)
        for path in map(self._part, PARTS):
            if path.exists() and pq.read_schema(path).field("vector").type != self._schema.field("vector").type:
                raise BadInputError(f"{path} has vectors of another size; give the index another name")

    def _part(self, part: str) -> Path:
        return self._folder / f"part-{part}.parquet"

    def _changes(self, part: str) -> list[Path]:
        return sorted((self._folder / _CHANGES / part).glob("*.parquet"))

    def write(self, rows: Rows) -> None:
        """See `SinkCollection`. Without vectors, the rows that are there are read for theirs."""
        vectors = rows.vectors
        if vectors is None:
            there = vectors_of(self, rows.ids)
            rows = rows.part([i for i, each in enumerate(rows.ids) if each in there])
            if not len(rows):
                return
            vectors = np.stack([there[each] for each in rows.ids])
        self._change(pa.table(payload_columns(rows, vectors, self._layout), schema=self._schema))

    def delete(self, ids: Sequence[UUID]) -> None:
        """See `SinkCollection`."""
        if ids:
            self._change(pa.table({"id": [str(each) for each in ids]}))

    def _change(self, table: pa.Table) -> None:
        """Add a file of changes to each part that the rows belong to; its name sorts after the others."""
        for part in PARTS:
            rows = table.filter(pc.starts_with(table["id"], part))
            if not len(rows):
                continue
            number = 1 + max((int(file.stem) for file in self._changes(part)), default=0)
            (self._folder / _CHANGES / part).mkdir(parents=True, exist_ok=True)
            with atomic_write(self._folder / _CHANGES / part / f"{number:012}.parquet") as file:
                pq.write_table(rows, file)

    def _base(self, part: str) -> pa.Table:
        path = self._part(part)
        return pq.read_table(path, schema=self._schema) if path.exists() else self._schema.empty_table()

    def _merged(self, part: str) -> pa.Table:
        """The rows of a part with all changes: the last one that names an id decides."""
        decided = pa.array([], pa.string())
        newest_first = []
        for file in reversed(self._changes(part)):
            changes = pq.read_table(file)
            fresh = changes.filter(pc.invert(pc.is_in(changes["id"], decided)))
            decided = pa.concat_arrays([decided, fresh["id"].combine_chunks()])
            if "vector" in changes.column_names:
                newest_first.append(_with_columns(fresh, self._schema))
        table = self._base(part)
        kept = table.filter(pc.invert(pc.is_in(table["id"], decided)))
        return pa.concat_tables([kept, *newest_first])

    def read(self, ids: Sequence[UUID] | None = None) -> Iterator[tuple[list[UUID], Vectors | None]]:
        """See `SinkCollection`."""
        for part in PARTS:
            if ids is None:
                yield [UUID(each) for each in self._merged(part)["id"].to_pylist()], None
                continue
            wanted = {text for text in map(str, ids) if text.startswith(part)}
            for table in self._newest(part, wanted):
                yield [UUID(each) for each in table["id"].to_pylist()], _vectors(table, self._layout.dim)

    def _newest(self, part: str, wanted: set[str]) -> Iterator[pa.Table]:
        """The newest rows of these ids. What was written last is found without a look at the rest."""
        for file in [*reversed(self._changes(part)), self._part(part)]:
            if not wanted or not file.exists():
                return
            found = pq.read_table(file, filters=pc.is_in(pc.field("id"), pa.array(sorted(wanted))))
            wanted -= set(found["id"].to_pylist())
            if len(found) and "vector" in found.column_names:
                yield found

    def search(self, vector: Vectors, *, k: int, where: Payload) -> list[Match]:
        """See `SinkCollection`. Every vector is compared: for large collections, take a database."""
        check_where(where, self._layout.payload)
        best: list[Match] = []
        for part in PARTS:
            table = self._merged(part)
            for name, value in where.items():
                table = table.filter(pc.equal(table[name], str(value)))
            if not len(table):
                continue
            scores = cosines(vector, _vectors(table, self._layout.dim))
            first = np.argsort(-scores, kind="stable")[:k]
            rows = table.take(first).drop(["vector"]).to_pylist()
            best += [from_columns(row, self._layout, float(scores[i])) for i, row in zip(first, rows, strict=True)]
        return sorted(best, key=lambda match: -match.score)[:k]

    def finish(self) -> None:
        """Write the parts that have changes anew; after a crash in between, the changes are applied once more."""
        for part in PARTS:
            changes = self._changes(part)
            if changes:
                table = self._merged(part).sort_by("id")
                with atomic_write(self._part(part)) as file:
                    pq.write_table(table, file)
            for change in changes:
                change.unlink()


def _with_columns(table: pa.Table, schema: Any) -> pa.Table:
    """A table with these columns, which a run with another payload may not have written."""
    columns = [
        table[field.name].cast(field.type) if field.name in table.column_names else pa.nulls(len(table), field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)


def _vectors(table: pa.Table, dim: int) -> Vectors:
    column: Any = table["vector"].combine_chunks()
    flat: Vectors = column.flatten().to_numpy(zero_copy_only=False).astype(np.float32, copy=False)
    return flat.reshape(-1, dim)
