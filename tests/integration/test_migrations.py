"""Migrations lead to the tables that the code uses."""

from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text

import semel.migrations
import semel.tasks.jobs.schema  # adds its tables
from semel.cache.schema import metadata
from semel.db import HEAD, Database
from semel.errors import SchemaError


def test_an_upgrade_from_empty_gives_the_tables(db: Database) -> None:
    with db.read() as conn:
        assert compare_metadata(MigrationContext.configure(conn), metadata) == []


def test_head_is_the_newest_migration() -> None:
    folder = Path(semel.migrations.__file__).parent
    assert ScriptDirectory(str(folder)).get_current_head() == HEAD


def test_a_second_upgrade_changes_nothing(db: Database) -> None:
    db.upgrade()


def test_a_database_of_a_newer_semel_is_refused(db: Database) -> None:
    with db.write() as conn:
        conn.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(SchemaError, match="newer semel"):
        db.upgrade()
