"""Empty databases: SQLite ones that are ready in a few milliseconds, and PostgreSQL ones that go with the test."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg

from semel.db import Database

POSTGRES_URL = os.environ.get("SEMEL_TEST_POSTGRES_URL", "postgresql://127.0.0.1:5432/postgres")


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


@contextmanager
def postgresql_database() -> Iterator[str]:
    """The URL of a new PostgreSQL database. Raises psycopg.OperationalError if no server answers at POSTGRES_URL."""
    name = f"semel_test_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(POSTGRES_URL, autocommit=True, connect_timeout=3) as admin:
        admin.execute(f"CREATE DATABASE {name}")
        yield POSTGRES_URL.rpartition("/")[0] + f"/{name}"
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
