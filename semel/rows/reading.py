"""The inputs of a command or an upload: the rows of a file or folder, and the text of each."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from semel.errors import BadInputError
from semel.rows.folder import read_folder
from semel.rows.formats import read_file
from semel.rows.record import Item, Record, Wanted, id_of, why_unreadable


def read_items(
    path: Path,
    *,
    text_field: str,
    strict: bool = False,
    max_text_bytes: int,
    whole: bool = False,
    include: Sequence[str] = (),
) -> Iterator[Item]:
    """The texts of a file or folder, in order and with duplicates.

    A .txt file has one text per line; in a folder, each text file is one text.

    Args:
        path: a file or folder.
        text_field: the field of a row that holds the text.
        strict: raise the error of the first unreadable input, instead of yielding it in its place.
        max_text_bytes: longer texts are unreadable; counted in characters.
        whole: read every field of a row, not only its text and id.
        include: as for `read_records`.

    Raises:
        BadInputError: the file does not exist, has an unknown suffix, or has an unreadable input (if `strict`);
            the message names file and line.
    """
    columns = None if whole else [text_field, "id"]
    records = read_records(path, [text_field], columns=columns, max_text_bytes=max_text_bytes, include=include)
    for index, record in enumerate(records):
        error = record.error or why_unreadable(record.fields, text_field, max_text_bytes)
        if error and strict:
            raise BadInputError(f"{record.where}: {error} (without --strict, such inputs fail in their places)")
        text = None if error else str(record.fields[text_field])
        yield Item(index, text, record.where, id_of(record.fields.get("id")), error, record.fields if whole else {})


def read_records(
    path: Path,
    required: Sequence[str],
    *,
    columns: Sequence[str] | None = None,
    max_text_bytes: int,
    isolate: bool = False,
    max_bytes: int | None = None,
    include: Sequence[str] = (),
) -> Iterator[Record]:
    """The rows of a file or folder, in order.

    Args:
        required, columns, max_text_bytes, isolate, max_bytes: as of `Wanted`.
        include: patterns of the names of files in a folder that are read as texts, whatever their suffix.

    Raises:
        BadInputError: the file does not exist, has an unknown suffix, is damaged, or is a table without a required
            column.
    """
    if not path.exists():
        raise BadInputError(f"there is no file or folder {path}")
    wanted = Wanted(required, columns, max_text_bytes, isolate, max_bytes)
    yield from read_folder(path, wanted, include) if path.is_dir() else read_file(path, wanted)
