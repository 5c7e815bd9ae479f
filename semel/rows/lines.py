"""Files of lines: .jsonl and .txt."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from semel.rows.opened import opened
from semel.rows.record import Record, Wanted


def read_txt(path: Path, wanted: Wanted) -> Iterator[Record]:
    """Each line is a text."""
    for where, line in _decoded(path, wanted):
        yield line if isinstance(line, Record) else Record(where, {wanted.required[0]: line})


def read_jsonl(path: Path, wanted: Wanted) -> Iterator[Record]:
    """Each line is a row, or a text; an empty line is neither."""
    for where, line in _decoded(path, wanted):
        if isinstance(line, Record):
            yield line
        elif line.strip():
            yield _parsed(where, line, wanted.required[0])


def _parsed(where: str, line: str, name: str) -> Record:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        return Record(where, error=f"not JSON: {error}")
    return as_record(where, value, name)


def as_record(where: str, value: Any, name: str) -> Record:
    """The row that a JSON value is.

    Args:
        name: the field that a bare string becomes.
    """
    if isinstance(value, str):
        return Record(where, {name: value})
    if isinstance(value, dict):
        return Record(where, value)
    return Record(where, error=f"a {type(value).__name__} instead of an object with the field {name!r}")


def _decoded(path: Path, wanted: Wanted) -> Iterator[tuple[str, str | Record]]:
    """(file:line, the line), or a record with the error of a line that cannot be read."""
    for number, line in _lines(path, wanted):
        where = f"{path}:{number}"
        if line is None:
            yield where, Record(where, error=f"the line is longer than {wanted.longest_line} bytes")
            continue
        try:
            yield where, line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            yield where, Record(where, error=not_utf8(error))


def _lines(path: Path, wanted: Wanted) -> Iterator[tuple[int, bytes | None]]:
    """(number, bytes), or None for a line that is too long; memory holds one line."""
    limit = wanted.longest_line
    with opened(path, max_bytes=wanted.max_bytes) as stream:
        number = 0
        while line := stream.readline(limit + 2):
            number += 1
            if len(line) > limit + 1:
                if not line.endswith(b"\n"):
                    _skip_line(stream)
                yield number, None
            else:
                yield number, line.rstrip(b"\r\n")


def _skip_line(stream: BinaryIO) -> None:
    while (part := stream.readline(1 << 20)) and not part.endswith(b"\n"):
        pass


def not_utf8(error: UnicodeDecodeError) -> str:
    """The error of a text that is not UTF-8."""
    return f"not UTF-8 (byte 0x{error.object[error.start]:02x} at {error.start}); convert it, e.g. with iconv"
