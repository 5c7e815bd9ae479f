"""Tables of text: .csv and .tsv."""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from semel.errors import BadInputError
from semel.rows.opened import opened, suffix_of
from semel.rows.record import Record, Wanted
from semel.values.text import lone_surrogate


def read_delimited(path: Path, wanted: Wanted) -> Iterator[Record]:
    """Each record of the table is a row.

    A table whose quoting is wrong ends with an error: where its next record begins is anybody's guess.

    Raises:
        BadInputError: the quoting is wrong, or the header cannot be used.
    """
    csv.field_size_limit(wanted.longest_line)
    with (
        opened(path, max_bytes=wanted.max_bytes) as file,
        io.TextIOWrapper(file, encoding="utf-8-sig", newline="", errors="surrogateescape") as stream,
    ):
        reader = csv.reader(stream, delimiter="\t" if suffix_of(path) == ".tsv" else ",", strict=True)
        try:
            names = next(reader, [])
            _check_header(path, names, wanted.required)
            for cells in reader:
                if cells:  # an empty line is no record
                    yield _record(f"{path}:{reader.line_num}", names, cells)
        except csv.Error as error:
            raise BadInputError(
                f"{path}:{reader.line_num}: not CSV: {error}; is a quotation mark missing, or not doubled?"
            ) from None


def _record(where: str, names: Sequence[str], cells: Sequence[str]) -> Record:
    fields: dict[str, Any] = dict.fromkeys(names) | dict(zip(names, cells, strict=False))
    row_id = {"id": fields["id"]} if "id" in fields and _is_utf8([fields["id"] or ""]) else {}
    if not _is_utf8(cells):
        return Record(where, row_id, error="not UTF-8; save the file as UTF-8")
    surplus = cells[len(names) :]
    if any(cell.strip() for cell in surplus):
        return Record(
            where,
            row_id,
            error=f"{len(cells)} cells under {len(names)} columns; put a text with the separator into quotation marks",
        )
    return Record(where, fields)


def _check_header(path: Path, names: Sequence[str], required: Sequence[str]) -> None:
    """Raises BadInputError for names that are not UTF-8, that are there twice, or of which one is missing."""
    if not _is_utf8(names):
        raise BadInputError(f"{path.name}: the line with the names of the columns is not UTF-8; save it as UTF-8")
    twice = next((name for i, name in enumerate(names) if name and name in names[:i]), None)
    if twice is not None:
        raise BadInputError(f"{path.name}: two columns have the name {twice!r}; rename one of them")
    check_columns(path, names, required)


def check_columns(path: Path, names: Sequence[str], required: Sequence[str]) -> None:
    """Raises BadInputError for a table without one of these columns."""
    for name in required:
        if name not in names:
            raise BadInputError(f"{path.name}: no column {name!r} (columns: {', '.join(names)})")


def _is_utf8(texts: Iterable[str]) -> bool:
    """Whether no byte had to be kept as half a surrogate pair, because it was not UTF-8."""
    return lone_surrogate("".join(texts)) is None
