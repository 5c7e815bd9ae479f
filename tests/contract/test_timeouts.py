"""No wait for the database is without a bound, whoever else holds it."""

import time
from collections.abc import Iterator

import pytest

from semel import db as db_module
from semel import postgres as postgres_module
from semel.db import Database
from semel.errors import UnavailableError

POSTGRESQL = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
"""SQLite works in this process: nobody else can slow its statements down."""


@pytest.fixture
def hasty(db: Database, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    """The database of `db`, but its waits end in less than a second."""
    for name in ("STATEMENT_TIMEOUT_S", "IDLE_TIMEOUT_S"):
        monkeypatch.setattr(postgres_module, name, 0.6)
    monkeypatch.setattr(postgres_module, "LOCK_TIMEOUT_S", 0.3)
    monkeypatch.setattr(db_module, "BUSY_TIMEOUT_S", 0.3)
    made = Database(database_url)
    yield made
    made.close()


def change_jobs(db: Database) -> None:
    with db.write() as conn:
        conn.exec_driver_sql("UPDATE jobs SET turn_at = 0")
        conn.exec_driver_sql("INSERT INTO webhooks (job_id, url, attempts, due_at) VALUES ('x', 'y', 0, 0)")


def test_a_lock_of_somebody_else_ends_the_wait_with_an_error(db: Database, hasty: Database) -> None:
    with db.write() as other:
        other.exec_driver_sql("INSERT INTO webhooks (job_id, url, attempts, due_at) VALUES ('x', 'y', 0, 0)")
        began = time.monotonic()
        with pytest.raises(UnavailableError, match="lock"):
            change_jobs(hasty)
        assert time.monotonic() - began < 5
        other.rollback()
    change_jobs(hasty)


@POSTGRESQL
def test_a_statement_that_takes_too_long_is_ended(hasty: Database) -> None:
    with pytest.raises(UnavailableError, match="statement timeout"), hasty.read() as conn:
        conn.exec_driver_sql("SELECT pg_sleep(5)")
    with hasty.write(unlimited=True) as conn:
        conn.exec_driver_sql("SELECT pg_sleep(0.8)")


@POSTGRESQL
def test_a_transaction_that_was_left_open_is_ended_and_the_next_one_works(hasty: Database) -> None:
    def idle() -> None:
        with hasty.write() as conn:
            conn.exec_driver_sql("SELECT 1")
            time.sleep(1.0)
            conn.exec_driver_sql("SELECT 1")

    with pytest.raises(UnavailableError, match="idle-in-transaction timeout"):
        idle()
    hasty.ping()
