"""Empty SQLite databases that are ready in a few milliseconds, for fast tests."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from semel.db import Database


@cache
def _migrated() -> bytes:
    """The content of an empty migrated database, made once in a process."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "semel.db"
        database = Database(f"sqlite:///{path}")
        database.upgrade()
        database.close()
        return path.read_bytes()


def migrated(path: Path) -> Path:
    """Put a migrated database there, unless there is one."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_migrated())
    return path


@contextmanager
def sqlite_database(folder: Path) -> Iterator[Database]:
    """A migrated database in `folder`."""
    path = migrated(folder / "semel.db")
    database = Database(f"sqlite:///{path}")
    yield database
    database.close()
