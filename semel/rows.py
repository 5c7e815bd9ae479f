"""Rows and texts from .jsonl, .csv, .parquet and .txt files and from folders, read as a stream."""

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from semel.bounded_parquet import BoundedParquet
from semel.errors import BadInputError
from semel.isolated_parquet import IsolatedParquet
from semel.values.text import lone_surrogate, longer_than

ROW_SUFFIXES = (".jsonl", ".ndjson", ".csv", ".parquet")
"""Files with many rows."""

FILE_SUFFIXES = (*ROW_SUFFIXES, ".txt")
"""Files that can be read on their own."""

TEXT_SUFFIXES = (".txt", ".md", ".rst")
"""Files in a folder that are one text each."""


@dataclass(frozen=True)
class Item:
    """One input, readable or not.

    Attributes:
        index: position in the input, from 0; unreadable inputs count too, so that no position shifts.
        text: the text; None if it cannot be read.
        where: file and line.
        id: the row's `id` field, or the file's name in a folder.
        error: why the text cannot be read; None if it can.
        fields: the row, if it was read as a whole.
    """

    index: int
    text: str | None
    where: str
    id: str | int | None = None
    error: str | None = None
    fields: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Record:
    """A row as it is in the file.

    Attributes:
        where: file and line.
        fields: its fields.
        error: why it has no fields; None if it has.
    """

    where: str
    fields: dict[str, Any] = field(default_factory=dict)
    error: str | None = None


def read_items(
    path: Path, *, text_field: str, skip_bad: bool, max_text_bytes: int, whole: bool = False
) -> Iterator[Item]:
    """The texts of a file or folder, in order and with duplicates.

    A .txt file has one text per line; in a folder, each text file is one text.

    Args:
        path: a file or folder.
        text_field: the field of a row that holds the text.
        skip_bad: yield unreadable inputs with their error instead of raising it.
        max_text_bytes: longer texts are unreadable; counted in characters.
        whole: read every field of a row, not only its text and id.

    Raises:
        BadInputError: the file does not exist, has an unknown suffix, or has an unreadable input (unless `skip_bad`);
            the message names file and line.
    """
    columns = None if whole else [text_field, "id"]
    records = read_records(path, [text_field], columns=columns, max_text_bytes=max_text_bytes)
    for index, record in enumerate(records):
        text = record.fields.get(text_field)
        error = record.error or _why_unreadable(text, text_field, max_text_bytes)
        if error and not skip_bad:
            raise BadInputError(f"{record.where}: {error} (use --skip-bad to continue and list such inputs)")
        row_id = record.fields.get("id")
        yield Item(
            index,
            None if error else str(text),
            record.where,
            row_id if isinstance(row_id, str | int) else None,
            error,
            record.fields if whole else {},
        )


def read_records(
    path: Path,
    required: Sequence[str],
    *,
    columns: Sequence[str] | None = None,
    max_text_bytes: int,
    isolate: bool = False,
) -> Iterator[Record]:
    """The rows of a file or folder, in order.

    Args:
        required: fields that a table must have; a bare string, or a line of a .txt file, becomes the first of them.
        columns: the only columns to read, if the format allows it; None for all.
        max_text_bytes: a line of a .jsonl or .txt file may have at most twice this many bytes.
        isolate: a stranger made the file: a format whose reader can crash is read in a process of its own.

    Raises:
        BadInputError: the file does not exist, has an unknown suffix, is damaged, or is a table without a required
            column.
    """
    if not path.exists():
        raise BadInputError(f"there is no file or folder {path}")
    if path.is_dir():
        yield from _folder(path, required, columns, max_text_bytes)
    else:
        yield from _file(path, required, columns, max_text_bytes, isolate=isolate)


def _why_unreadable(text: object, name: str, limit: int) -> str | None:
    if text is None:
        return f"no field {name!r}"
    if not isinstance(text, str):
        return f"field {name!r} is {type(text).__name__}, not a string"
    if not text:
        return "the text is empty"
    if len(text) > limit:
        return f"the text {longer_than(limit)}"
    surrogate = lone_surrogate(text)
    return f"the text contains {surrogate}" if surrogate else None


def _folder(root: Path, required: Sequence[str], columns: Sequence[str] | None, limit: int) -> Iterator[Record]:
    files = sorted(f for f in root.rglob("*") if f.is_file() and f.suffix.lower() in (*ROW_SUFFIXES, *TEXT_SUFFIXES))
    if not files:
        raise BadInputError(f"folder {root} has no {', '.join((*ROW_SUFFIXES, *TEXT_SUFFIXES))} file")
    for file in files:
        if file.suffix.lower() in ROW_SUFFIXES:
            yield from _file(file, required, columns, limit)
            continue
        name = file.relative_to(root).as_posix()
        try:
            yield Record(str(file), {required[0]: file.read_text(encoding="utf-8"), "id": name})
        except UnicodeDecodeError as error:
            yield Record(str(file), {"id": name}, error=_not_utf8(error))


def _file(
    path: Path, required: Sequence[str], columns: Sequence[str] | None, limit: int, *, isolate: bool = False
) -> Iterator[Record]:
    suffix = path.suffix.lower()
    if suffix in (".jsonl", ".ndjson"):
        yield from _jsonl(path, required[0], limit)
    elif suffix == ".csv":
        yield from _csv(path, required, limit)
    elif suffix == ".parquet":
        yield from _parquet(path, required, columns, isolate=isolate)
    elif suffix == ".txt":
        yield from _txt(path, required[0], limit)
    else:
        known = ", ".join(FILE_SUFFIXES)
        kind = f"with the suffix {path.suffix!r}" if path.suffix else "without a suffix"
        raise BadInputError(f"{path}: semel reads {known} and folders, but no files {kind}")


def _check_columns(path: Path, names: Sequence[str], required: Sequence[str]) -> None:
    for name in required:
        if name not in names:
            raise BadInputError(f"{path.name}: no column {name!r} (columns: {', '.join(names)})")


def _lines(path: Path, limit: int) -> Iterator[tuple[str, bytes | None]]:
    """(file:line, bytes), or None for a line that is too long; memory holds one line."""
    with path.open("rb") as stream:
        number = 0
        while line := stream.readline(limit * 2 + 2):
            number += 1
            if len(line) > limit * 2 + 1:
                if not line.endswith(b"\n"):
                    _skip_line(stream)
                yield f"{path}:{number}", None
            else:
                yield f"{path}:{number}", line.rstrip(b"\r\n")


def _skip_line(stream: BinaryIO) -> None:
    while (part := stream.readline(1 << 20)) and not part.endswith(b"\n"):
        pass


def _txt(path: Path, name: str, limit: int) -> Iterator[Record]:
    for where, line in _lines(path, limit):
        if line is None:
            yield Record(where, error=f"the line is longer than {limit * 2} bytes")
            continue
        try:
            yield Record(where, {name: line.decode("utf-8-sig" if where.endswith(":1") else "utf-8")})
        except UnicodeDecodeError as error:
            yield Record(where, error=_not_utf8(error))


def _jsonl(path: Path, name: str, limit: int) -> Iterator[Record]:
    for where, line in _lines(path, limit):
        if line is None:
            yield Record(where, error=f"the line is longer than {limit * 2} bytes")
            continue
        if not line.strip():
            continue  # an empty line is no record
        try:
            record = json.loads(line.decode("utf-8-sig" if where.endswith(":1") else "utf-8"))
        except UnicodeDecodeError as error:
            yield Record(where, error=_not_utf8(error))
            continue
        except (ValueError, RecursionError) as error:
            yield Record(where, error=f"not JSON: {error}")
            continue
        if isinstance(record, str):
            yield Record(where, {name: record})
        elif isinstance(record, dict):
            yield Record(where, record)
        else:
            yield Record(where, error=f"a {type(record).__name__} instead of an object with the field {name!r}")


def _csv(path: Path, required: Sequence[str], limit: int) -> Iterator[Record]:
    csv.field_size_limit(limit * 2)
    with path.open(encoding="utf-8-sig", newline="", errors="surrogateescape") as stream:
        reader = csv.DictReader(stream)
        try:
            names = list(reader.fieldnames or [])
            if not _is_utf8(names):
                raise BadInputError(
                    f"{path.name}: the line with the names of the columns is not UTF-8; save it as UTF-8"
                )
            _check_columns(path, names, required)
            for record in reader:
                where = f"{path}:{reader.line_num}"
                if not _is_utf8(value for value in record.values() if isinstance(value, str)):
                    row_id = record.get("id") or ""
                    fields = {"id": row_id} if _is_utf8([row_id]) else {}
                    yield Record(where, fields, error="not UTF-8; save the file as UTF-8")
                else:
                    record.pop(None, None)  # cells beyond the last column of the header
                    yield Record(where, record)
        except csv.Error as error:
            raise BadInputError(f"{path}:{reader.line_num}: not CSV: {error}") from None


def _is_utf8(texts: Iterable[str]) -> bool:
    """Whether no byte had to be kept as half a surrogate pair, because it was not UTF-8."""
    return lone_surrogate("".join(texts)) is None


def _parquet(path: Path, required: Sequence[str], columns: Sequence[str] | None, *, isolate: bool) -> Iterator[Record]:
    reader = IsolatedParquet if isolate else BoundedParquet
    with reader(path, columns=columns) as file:
        _check_columns(path, file.names, required)
        row = 0
        for rows in file.pieces():
            for fields in rows:
                row += 1
                where = f"{path}: row {row}"
                yield Record(where, error=fields) if isinstance(fields, str) else Record(where, fields)


def _not_utf8(error: UnicodeDecodeError) -> str:
    return f"not UTF-8 (byte 0x{error.object[error.start]:02x} at {error.start}); convert it, e.g. with iconv"
