"""Migrations lead to the tables that the code uses."""

import hashlib
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text

import semel.migrations
import semel.sync.ledger.schema
import semel.tasks.jobs.schema  # both add their tables
from semel.cache.schema import metadata
from semel.db import HEAD, Database
from semel.errors import SchemaError
from semel.tasks.jobs.installation import installation_id


def test_an_upgrade_from_empty_gives_the_tables(db: Database) -> None:
    with db.read() as conn:
        assert compare_metadata(MigrationContext.configure(conn), metadata) == []


def test_head_is_the_newest_migration() -> None:
    folder = Path(semel.migrations.__file__).parent
    assert ScriptDirectory(str(folder)).get_current_head() == HEAD


LANDED = {
    "v0001_first_schema.py": "45add0f9c224c06c",
    "v0002_idempotency_keys.py": "d1ba61c17cb14464",
    "v0003_files_and_batches.py": "8cd68685153c9bcf",
    "v0004_failover.py": "8b961f37fc4aca77",
    "v0005_use_of_spaces.py": "c7fd2b3bd26e98bb",
    "v0006_traces_of_jobs.py": "90249ed4f4496e7e",
    "v0007_times_of_jobs.py": "334dd94613e90ee8",
    "v0008_jobs_that_wait.py": "0ebabc0be45a7b8f",
    "v0009_turns.py": "80fec62e6f3fa362",
    "v0010_suspects.py": "be164f5d4699cbd2",
    "v0011_tries.py": "b4e91c9f51e674d8",
    "v0012_namespaces.py": "2d4c523d26c86991",
    "v0013_variants.py": "111e3a697d28249a",
    "v0014_uploads.py": "d82d6e49377c36cc",
}
"""The first half of the SHA-256 of each migration that has landed. Add a migration with the change that follows it."""


def test_migrations_that_have_landed_are_not_edited() -> None:
    """A database that has run one never runs it again: an edit would be missing there for ever."""
    folder = Path(semel.migrations.__file__).parent / "versions"
    found = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest()[:16] for name in LANDED}
    assert found == LANDED


def test_each_database_has_its_own_identity(db: Database, tmp_path: Path) -> None:
    other = Database(f"sqlite:///{tmp_path / 'other.db'}")
    other.upgrade()
    assert installation_id(db) == installation_id(db) != installation_id(other)
    other.close()


def test_a_second_upgrade_changes_nothing(db: Database) -> None:
    db.upgrade()


def test_a_database_of_a_newer_semel_is_refused(db: Database) -> None:
    with db.write() as conn:
        conn.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(SchemaError, match="newer semel"):
        db.upgrade()
