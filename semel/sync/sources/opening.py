"""The source that an address names."""

import re
from pathlib import Path

from semel.errors import BadInputError
from semel.rows import has_known_format
from semel.sync.addresses import without_password
from semel.sync.sources.base import Source
from semel.sync.sources.files import FIELDS, Files, LocalTree, RemoteTree
from semel.sync.sources.query import QueryRows
from semel.sync.sources.rows import Columns, Rows, TableFiles
from semel.values.sync import SyncEntry

_MOST_CHARACTERS = 64 << 20
"""A row's text may have so many; it is split before a model sees it."""


def open_source(entry: SyncEntry) -> Source:
    """The documents of a sync.

    Raises:
        BadInputError: the address, or what goes with it, makes no source.
        UnavailableError: it needs a package that is not installed.
    """
    columns = Columns(entry.id, entry.text_field, entry.version, entry.payload)
    if entry.query is not None:
        if not _scheme(entry.source):
            raise BadInputError(f"a query needs the URL of a database as its source, not {entry.source!r}")
        return _rows(QueryRows(entry.source, entry.query, columns), columns)
    if _scheme(entry.source):
        if re.match(r"(postgresql|postgres|mysql|sqlite|mssql|oracle)\b", entry.source):
            raise BadInputError('a database needs a query: query = "select id, text from …"')
        _check_fields(entry)
        return Files(RemoteTree(entry.source), entry.include, with_titles="title" in entry.payload)
    path = Path(entry.source).expanduser()
    if path.is_dir() and not (_holds_tables(path) and not entry.include):
        _check_fields(entry)
        return Files(LocalTree(path), entry.include, with_titles="title" in entry.payload)
    if path.is_dir() or has_known_format(path):
        return _rows(TableFiles(path, columns, max_text_bytes=_MOST_CHARACTERS), columns)
    if not path.exists():
        raise BadInputError(f"there is no file or folder {path}; if it is a mount, it may be gone")
    raise BadInputError(f"{path} is no folder, and no file with rows (.parquet, .jsonl, .csv …)")


def _rows(records: QueryRows | TableFiles, columns: Columns) -> Rows:
    return Rows(records, columns, most_characters=_MOST_CHARACTERS)


def _check_fields(entry: SyncEntry) -> None:
    unknown = [name for name in entry.payload if name not in FIELDS]
    if unknown:
        raise BadInputError(f"files have no field {unknown[0]!r} for the payload (they have: {', '.join(FIELDS)})")


def _holds_tables(folder: Path) -> bool:
    """Whether a folder is a dataset: its files, hidden ones aside, are Parquet."""
    files = (file for file in folder.rglob("*") if file.is_file() and not file.name.startswith((".", "_")))
    first = next(files, None)
    return first is not None and first.suffix == ".parquet" and all(file.suffix == ".parquet" for file in files)


def _scheme(address: str) -> str:
    found = re.match(r"([a-z][a-z0-9+.-]+)://", address)
    return found[1] if found else ""


def shown_source(address: str) -> str:
    """A source without its password; a path is made absolute, so that it means the same in every folder."""
    if not _scheme(address):
        return str(Path(address).expanduser().absolute())
    return without_password(address)
