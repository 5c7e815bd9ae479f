"""The formats of files with rows: suffix → reader."""

from collections.abc import Callable, Iterator
from pathlib import Path

from semel.errors import BadInputError
from semel.rows.bounded_parquet import BoundedParquet
from semel.rows.delimited import check_columns, read_delimited
from semel.rows.isolated_parquet import IsolatedParquet
from semel.rows.json_array import read_json
from semel.rows.lines import read_jsonl, read_txt
from semel.rows.opened import COMPRESSED, suffix_of
from semel.rows.record import Record, Wanted


def _read_parquet(path: Path, wanted: Wanted) -> Iterator[Record]:
    reader = IsolatedParquet if wanted.isolate else BoundedParquet
    with reader(path, columns=wanted.columns) as file:
        check_columns(path, file.names, wanted.required)
        row = 0
        for rows in file.pieces():
            for fields in rows:
                row += 1
                where = f"{path}: row {row}"
                yield Record(where, error=fields) if isinstance(fields, str) else Record(where, fields)


_READERS: dict[str, Callable[[Path, Wanted], Iterator[Record]]] = {
    ".jsonl": read_jsonl,
    ".ndjson": read_jsonl,
    ".json": read_json,
    ".csv": read_delimited,
    ".tsv": read_delimited,
    ".parquet": _read_parquet,
    ".txt": read_txt,
}

ROW_SUFFIXES = tuple(suffix for suffix in _READERS if suffix != ".txt")
"""Files with many rows."""

FILE_SUFFIXES = tuple(_READERS)
"""Files that can be read on their own; all but Parquet may be compressed."""


def has_known_format(path: Path) -> bool:
    """Whether `read_file` reads files of this name."""
    suffix = suffix_of(path)
    return suffix in _READERS and (suffix != ".parquet" or path.suffix.lower() not in COMPRESSED)


def read_file(path: Path, wanted: Wanted) -> Iterator[Record]:
    """The rows of a file, in order.

    Raises:
        BadInputError: the file has an unknown suffix, is damaged, or is a table without a required column.
    """
    if not has_known_format(path):
        known = ", ".join(FILE_SUFFIXES)
        kind = f"with the suffix {path.suffix!r}" if path.suffix else "without a suffix"
        raise BadInputError(
            f"{path}: semel reads {known}, the same with {' or '.join(COMPRESSED)} (except Parquet), and folders, "
            f"but no files {kind}"
        )
    yield from _READERS[suffix_of(path)](path, wanted)
