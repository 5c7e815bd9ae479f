"""Rows as documents: of files with a table, of a folder of Parquet files, and of a query."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semel.errors import BadInputError
from semel.rows import Record, read_records
from semel.rows.record import why_unreadable
from semel.sync.document import Document, Listed, document_id, json_value
from semel.sync.sources.files import unlistable


@dataclass(frozen=True)
class Columns:
    """Which columns of a row mean what.

    Attributes:
        version: None if there is none: then the content decides whether a document changed.
        payload: those that the index keeps.
    """

    id: str
    text: str
    version: str | None
    payload: tuple[str, ...]

    @property
    def all(self) -> tuple[str, ...]:
        """All of them, once each."""
        version = () if self.version is None else (self.version,)
        return tuple(dict.fromkeys((self.id, self.text, *version, *self.payload)))

    def listed(self, record: Record, most_characters: int) -> Listed:
        """The document in a row."""
        row_id = document_id(record.fields.get(self.id))
        if row_id is None:
            why = record.error or f"its {self.id!r}, which identifies a row, is missing or cannot be stored"
            return Listed(None, error=f"{record.where}: {why}")
        version = None if self.version is None else _version(record.fields.get(self.version))
        error = record.error or why_unreadable(record.fields, self.text, most_characters)
        if error:
            return Listed(row_id, version, error=error)
        fields = {name: json_value(record.fields.get(name)) for name in self.payload}
        return Listed(row_id, version, Document(row_id, version, record.fields[self.text], fields))


def _version(value: Any) -> str | None:
    return None if value is None else str(json_value(value))


class Rows:
    """Rows as documents, in one pass.

    Args:
        records: opens the rows; called once for each pass.
        columns: what they mean.
        most_characters: a longer text cannot be read.
    """

    threads = 2

    def __init__(self, records: Iterable[Record], columns: Columns, *, most_characters: int) -> None:
        self._records = records
        self._columns = columns
        self._most = most_characters

    def list(self) -> Iterator[Listed]:
        """The rows, with their content; see `Source`."""
        for record in self._records:
            yield self._columns.listed(record, self._most)

    def read(self, listed: Listed) -> Document:
        """The document that was listed; see `Source`."""
        assert listed.document is not None  # rows are listed with their content, or with an error
        return listed.document

    def is_current(self, document: Document) -> bool:  # noqa: ARG002  # a query has no cheap way to ask again
        """See `Source`."""
        return True


class TableFiles:
    """The rows of a file, or of all Parquet files in a folder.

    Args:
        path: a file that `semel embed` reads, or a folder.
    """

    def __init__(self, path: Path, columns: Columns, *, max_text_bytes: int) -> None:
        self._path = path
        self._columns = columns
        self._max_text_bytes = max_text_bytes

    def __iter__(self) -> Iterator[Record]:
        if not self._path.exists():
            raise BadInputError(f"there is no file or folder {self._path}; if it is a mount, it may be gone")
        files = parquet_files(self._path) if self._path.is_dir() else [self._path]
        for file in files:
            columns = list(self._columns.all)
            yield from read_records(file, columns, columns=columns, max_text_bytes=self._max_text_bytes)


def parquet_files(folder: Path) -> list[Path]:
    """The Parquet files of a dataset, without hidden ones and those that begin with `_`. Raises UnavailableError."""
    found: list[Path] = []
    for place, folders, files in os.walk(folder, onerror=unlistable):
        folders[:] = [name for name in folders if not name.startswith((".", "_"))]
        found += [Path(place, name) for name in files if name.endswith(".parquet") and not name.startswith((".", "_"))]
    return sorted(found)
