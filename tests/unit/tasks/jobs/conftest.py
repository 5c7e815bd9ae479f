"""A database for one test, and the jobs in it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from semel.db import Database
from tests.support.databases import sqlite_database
from tests.support.jobs import Jobs


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    """SQLite only: what depends on the kind of database is in tests/contract."""
    with sqlite_database(tmp_path) as database:
        yield database


@pytest.fixture
def jobs(db: Database) -> Jobs:
    return Jobs(db, window_s=60, retention_s=600)
