"""A folder of files: each text file is one text, and each other file has rows."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from semel.errors import BadInputError
from semel.rows.formats import ROW_SUFFIXES, has_known_format, read_file
from semel.rows.lines import not_utf8
from semel.rows.opened import opened, suffix_of
from semel.rows.record import Record, Wanted, id_of
from semel.values.text import longer_than

TEXT_SUFFIXES = (".txt", ".md", ".mdx", ".markdown", ".rst", ".adoc", ".org")
"""Files in a folder that are one text each."""


def read_folder(root: Path, wanted: Wanted, include: Sequence[str]) -> Iterator[Record]:
    """The texts and rows of all files, in the order of their names. Hidden files and folders are left out.

    A file that cannot be read is one row with an error. Ids name the file: `notes/a.md`, or `b.csv#7` for a row.

    Args:
        include: patterns of file names; the files that match one are read as texts, whatever their suffix.

    Raises:
        BadInputError: the folder has no file that is read.
    """
    files = [file for file in _files(root) if _is_read(root, file, include)]
    if not files:
        known = ", ".join((*ROW_SUFFIXES, *TEXT_SUFFIXES))
        raise BadInputError(f"folder {root} has no {known} file; --include '*.SUFFIX' reads others as text")
    for file in files:
        name = _printable(file.relative_to(root).as_posix())
        if _has_rows(file) and not _matches(root, file, include):
            yield from _rows(file, name, wanted)
        else:
            yield _text(file, name, wanted)


def skipped_files(root: Path, include: Sequence[str] = ()) -> Counter[str]:
    """How many files of each suffix a folder has that are not read; hidden ones do not count."""
    if not root.is_dir():
        return Counter()
    skipped = (file for file in _files(root) if not _is_read(root, file, include))
    return Counter(file.suffix.lower() or "without a suffix" for file in skipped)


def _files(root: Path) -> list[Path]:
    """The files that are not hidden, and in no hidden folder, in the order of their names."""
    found = (file for file in root.rglob("*") if file.is_file())
    return sorted(file for file in found if not any(part.startswith(".") for part in file.relative_to(root).parts))


def _is_read(root: Path, file: Path, include: Sequence[str]) -> bool:
    return _has_rows(file) or suffix_of(file) in TEXT_SUFFIXES or _matches(root, file, include)


def _has_rows(file: Path) -> bool:
    return has_known_format(file) and suffix_of(file) in ROW_SUFFIXES


def _matches(root: Path, file: Path, include: Sequence[str]) -> bool:
    return any(file.relative_to(root).match(pattern) for pattern in include)


def _rows(file: Path, name: str, wanted: Wanted) -> Iterator[Record]:
    try:
        for number, record in enumerate(read_file(file, wanted), start=1):
            row_id = id_of(record.fields.get("id"))
            row_name = f"{name}#{number if row_id is None else row_id}"
            yield Record(record.where, {**record.fields, "id": row_name}, record.error)
    except (BadInputError, OSError) as error:
        yield Record(str(file), {"id": name}, error=str(error))


def _text(file: Path, name: str, wanted: Wanted) -> Record:
    try:
        with opened(file) as stream:
            most = 4 * wanted.max_text_bytes  # more bytes are more characters, whatever the characters are
            data = stream.read(most + 1)
            if len(data) > most:
                return Record(str(file), {"id": name}, error=f"the text {longer_than(wanted.max_text_bytes)}")
            return Record(str(file), {wanted.required[0]: data.decode("utf-8-sig"), "id": name})
    except UnicodeDecodeError as error:
        return Record(str(file), {"id": name}, error=not_utf8(error))
    except (BadInputError, OSError) as error:
        return Record(str(file), {"id": name}, error=str(error))


def _printable(name: str) -> str:
    """A file's name, with a mark for each byte that is not UTF-8."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
