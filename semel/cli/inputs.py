"""Texts from files: .jsonl, .csv, .parquet, .txt, and folders of them. Read as a stream."""

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from semel.errors import BadInputError

ROW_SUFFIXES = (".jsonl", ".ndjson", ".csv", ".parquet")
TEXT_SUFFIXES = (".txt", ".md", ".rst")


@dataclass(frozen=True)
class Item:
    """One input, good or bad.

    Attributes:
        index: position in the input, from 0; bad ones count too, so that nothing shifts.
        text: None when it cannot be read, and then `error` says why.
        id: the row's `id` field, or the file's name in a folder.
        where: file and line.
    """

    index: int
    text: str | None
    where: str
    id: str | int | None = None
    error: str | None = None


@dataclass(frozen=True)
class _Row:
    where: str
    text: object = None
    id: Any = None
    error: str | None = None


def read_items(path: Path, *, text_field: str, skip_bad: bool, max_text_bytes: int) -> Iterator[Item]:
    """The texts of a file or folder, in order, duplicates kept.

    A .txt file has one text a line; in a folder a text file is one text as a whole.

    Raises:
        BadInputError: no such file, an unknown kind, or a bad input (unless `skip_bad`); names file and line.
    """
    if not path.exists():
        raise BadInputError(f"there is no file or folder {path}")
    rows = _folder(path, text_field, max_text_bytes) if path.is_dir() else _file(path, text_field, max_text_bytes)
    for index, row in enumerate(rows):
        error = row.error or _why_bad(row.text, text_field, max_text_bytes)
        if error and not skip_bad:
            raise BadInputError(f"{row.where}: {error} (--skip-bad goes on and lists such inputs)")
        ident = row.id if isinstance(row.id, str | int) else None
        yield Item(index, None if error else str(row.text), row.where, ident, error)


def _why_bad(text: object, field: str, limit: int) -> str | None:
    if text is None:
        return f"no field {field!r}"
    if not isinstance(text, str):
        return f"field {field!r} is {type(text).__name__}, not a string"
    if not text:
        return "the text is empty"
    if len(text) > limit:
        return f"the text is longer than {limit} characters (SEMEL_MAX_TEXT_BYTES)"
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return f"the text holds a lone surrogate (\\u{ord(text[error.start]):04x} at character {error.start})"
    return None


def _folder(root: Path, field: str, limit: int) -> Iterator[_Row]:
    files = sorted(f for f in root.rglob("*") if f.is_file() and f.suffix.lower() in (*ROW_SUFFIXES, *TEXT_SUFFIXES))
    if not files:
        raise BadInputError(f"folder {root} has no {', '.join((*ROW_SUFFIXES, *TEXT_SUFFIXES))} file")
    for file in files:
        if file.suffix.lower() in ROW_SUFFIXES:
            yield from _file(file, field, limit)
            continue
        name = file.relative_to(root).as_posix()
        try:
            yield _Row(str(file), file.read_text(encoding="utf-8"), name)
        except UnicodeDecodeError as error:
            yield _Row(str(file), id=name, error=_not_utf8(error))


def _file(path: Path, field: str, limit: int) -> Iterator[_Row]:
    readers = {".jsonl": _jsonl, ".ndjson": _jsonl, ".csv": _csv, ".parquet": _parquet, ".txt": _txt}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise BadInputError(f"{path}: semel reads {', '.join(readers)} and folders, not {path.suffix or 'this kind'!r}")
    yield from reader(path, field, limit)


def _lines(path: Path, limit: int) -> Iterator[tuple[str, bytes | None]]:
    """(file:line, bytes), None for a line that is too long; memory holds one line."""
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


def _txt(path: Path, _field: str, limit: int) -> Iterator[_Row]:
    for where, line in _lines(path, limit):
        if line is None:
            yield _Row(where, error=f"the line is longer than {limit * 2} bytes")
            continue
        try:
            yield _Row(where, line.decode("utf-8-sig" if where.endswith(":1") else "utf-8"))
        except UnicodeDecodeError as error:
            yield _Row(where, error=_not_utf8(error))


def _jsonl(path: Path, field: str, limit: int) -> Iterator[_Row]:
    for where, line in _lines(path, limit):
        if line is None:
            yield _Row(where, error=f"the line is longer than {limit * 2} bytes")
            continue
        if not line.strip():
            continue  # an empty line is no record
        try:
            record = json.loads(line.decode("utf-8-sig" if where.endswith(":1") else "utf-8"))
        except UnicodeDecodeError as error:
            yield _Row(where, error=_not_utf8(error))
            continue
        except ValueError as error:
            yield _Row(where, error=f"not JSON: {error}")
            continue
        if isinstance(record, str):
            yield _Row(where, record)
        elif isinstance(record, dict):
            yield _Row(where, record.get(field), record.get("id"))
        else:
            yield _Row(where, error=f"a {type(record).__name__}, where an object with {field!r} belongs")


def _csv(path: Path, field: str, limit: int) -> Iterator[_Row]:
    csv.field_size_limit(limit * 2)
    with path.open(encoding="utf-8-sig", newline="", errors="surrogateescape") as stream:
        reader = csv.DictReader(stream)
        if field not in (reader.fieldnames or []):
            raise BadInputError(f"{path}: no column {field!r} (columns: {', '.join(reader.fieldnames or [])})")
        try:
            for record in reader:
                text = record[field]
                where = f"{path}:{reader.line_num}"
                if text is not None and any("\udc80" <= c <= "\udcff" for c in text):
                    yield _Row(where, id=record.get("id"), error="not UTF-8; save the file as UTF-8")
                else:
                    yield _Row(where, text, record.get("id"))
        except csv.Error as error:
            raise BadInputError(f"{path}:{reader.line_num}: not CSV: {error}") from None


def _parquet(path: Path, field: str, _limit: int) -> Iterator[_Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
    except pa.ArrowInvalid as error:
        raise BadInputError(f"{path}: not a Parquet file: {error}") from None
    with file:
        names = file.schema_arrow.names
        if field not in names:
            raise BadInputError(f"{path}: no column {field!r} (columns: {', '.join(names)})")
        row = 0
        for batch in file.iter_batches(batch_size=1024, columns=[field, *(["id"] if "id" in names else [])]):
            texts = batch.column(field).to_pylist()
            ids = batch.column("id").to_pylist() if "id" in names else [None] * len(texts)
            for text, ident in zip(texts, ids, strict=True):
                row += 1
                yield _Row(f"{path}: row {row}", text, ident)


def _not_utf8(error: UnicodeDecodeError) -> str:
    return f"not UTF-8 (byte 0x{error.object[error.start]:02x} at {error.start}); convert it, e.g. with iconv"
