"""The database on SQLite: transactions, limits, and errors in semel's own classes."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy.exc import DataError, IntegrityError

from semel import db as db_module
from semel import sqlite_lock
from semel.db import BALLAST_BYTES, HEAD, RESERVE_BYTES, Database
from semel.errors import BadInputError, SchemaError, StorageFullError, UnavailableError

MIB = 1 << 20


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    """A database with one table and without migrations."""
    with opened(tmp_path) as database:
        yield database


class opened:  # noqa: N801  # used as a function
    """A database in a folder, with one table."""

    def __init__(self, folder: Path, *, max_bytes: int | None = None) -> None:
        self._database = Database(f"sqlite:///{folder / 'semel.db'}", max_bytes=max_bytes)

    def __enter__(self) -> Database:
        with self._database.write() as conn:
            conn.exec_driver_sql("CREATE TABLE IF NOT EXISTS notes (id INTEGER PRIMARY KEY, note BLOB UNIQUE)")
        return self._database

    def __exit__(self, *_: object) -> None:
        self._database.close()


def insert(db: Database, note: object, *, reserve: bool = False) -> None:
    with db.write(reserve=reserve) as conn:
        conn.exec_driver_sql("INSERT INTO notes (note) VALUES (?)", (note,))


def notes(db: Database) -> list[object]:
    with db.read() as conn:
        return list(conn.exec_driver_sql("SELECT note FROM notes ORDER BY id").scalars())


# Where it is


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("semel.db", "SEMEL_DATABASE_URL is not a database URL, such as"),
        ("mysql://host/db", "names the database 'mysql': use sqlite or postgresql"),
        ("sqlite://", "must be a file"),
        ("sqlite:///:memory:", "must be a file"),
    ],
)
def test_a_database_that_cannot_be_used_is_refused(url: str, message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        Database(url)


def test_a_password_is_not_shown() -> None:
    database = Database("postgresql://me:hush@127.0.0.1:9/db")
    assert "hush" not in str(database)
    assert str(database).startswith("postgresql+psycopg://me:")
    database.close()


def test_missing_folders_are_made(tmp_path: Path) -> None:
    Database(f"sqlite:///{tmp_path}/a/b/semel.db").close()
    assert (tmp_path / "a" / "b").is_dir()


def test_a_server_that_does_not_answer_is_unavailable() -> None:
    database = Database("postgresql://me:hush@127.0.0.1:9/db")
    with pytest.raises(UnavailableError, match=r"the database postgresql.* failed: ") as raised:
        database.ping()
    assert "hush" not in str(raised.value)
    database.close()


# Transactions


def test_a_block_that_ends_is_committed(db: Database, tmp_path: Path) -> None:
    insert(db, b"kept")
    with opened(tmp_path) as another:
        assert notes(another) == [b"kept"]


def test_a_block_that_fails_is_rolled_back(db: Database) -> None:
    def fails() -> None:
        with db.write() as conn:
            conn.exec_driver_sql("INSERT INTO notes (note) VALUES ('lost')")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert notes(db) == []


def test_a_read_sees_one_snapshot_while_others_write(db: Database) -> None:
    insert(db, b"before")
    with db.read() as conn:
        count = "SELECT count(*) FROM notes"
        assert conn.exec_driver_sql(count).scalar() == 1
        insert(db, b"meanwhile")
        assert conn.exec_driver_sql(count).scalar() == 1
    assert len(notes(db)) == 2


@pytest.mark.parametrize("single", [True, False])
def test_a_single_statement_is_spared_a_transaction(db: Database, single: bool) -> None:
    insert(db, b"before")
    with db.read(single=single) as conn:
        assert conn.exec_driver_sql("SELECT note FROM notes").scalars().all() == [b"before"]
        assert conn.connection.dbapi_connection.in_transaction is not single  # type: ignore[union-attr]


def test_readers_do_not_wait_for_the_writer(db: Database) -> None:
    with db.write() as conn:
        conn.exec_driver_sql("INSERT INTO notes (note) VALUES ('in the making')")
        assert notes(db) == []


def test_a_writer_waits_for_the_lock_until_the_timeout(
    monkeypatch: pytest.MonkeyPatch, db: Database, tmp_path: Path
) -> None:
    monkeypatch.setattr(db_module, "BUSY_TIMEOUT_S", 0)
    impatient = Database(f"sqlite:///{tmp_path / 'semel.db'}")
    with db.write(), pytest.raises(UnavailableError, match="database is locked"):
        insert(impatient, b"too late")
    insert(impatient, b"now")
    assert notes(db) == [b"now"]
    impatient.close()


def test_a_broken_rule_of_the_schema_is_a_bug_and_keeps_its_class(db: Database) -> None:
    insert(db, b"once")
    with pytest.raises(IntegrityError):
        insert(db, b"once")


def test_a_value_that_the_database_refuses_is_bad_input(db: Database) -> None:
    def postgresql_refuses() -> None:
        with db.write():
            raise DataError("INSERT", {}, Exception("text fields cannot contain NUL (0x00) bytes\n"))

    with pytest.raises(BadInputError, match=r"cannot store one of the values: text fields .* bytes$"):
        postgresql_refuses()


# Room


def fill(db: Database) -> int:
    """Write until there is no room; returns how many rows fitted."""
    for at in range(100):
        try:
            insert(db, bytes([at]) * (256 << 10))
        except StorageFullError:
            return at
    pytest.fail("the limit was never reached")


def test_a_full_database_says_what_to_do_and_keeps_what_it_has(tmp_path: Path) -> None:
    with opened(tmp_path, max_bytes=2 * MIB) as db:
        rows = fill(db)
        assert 0 < rows < 8
        with pytest.raises(StorageFullError, match=r"semel.db is full: .*SEMEL_DATABASE_MAX_BYTES"):
            insert(db, b"\xff" * (256 << 10))
        assert len(notes(db)) == rows


def test_bookkeeping_has_room_in_a_full_database(tmp_path: Path) -> None:
    with opened(tmp_path, max_bytes=2 * MIB) as db:
        fill(db)
        for at in range(4):
            insert(db, bytes([200 + at]) * (256 << 10), reserve=True)
        with pytest.raises(StorageFullError):
            insert(db, b"x" * (RESERVE_BYTES + MIB), reserve=True)


def test_a_full_disk_frees_the_ballast(db: Database, tmp_path: Path) -> None:
    ballast = tmp_path / "semel.db.ballast"
    assert ballast.stat().st_size == BALLAST_BYTES

    def disk_full() -> None:
        with db.write() as conn:
            conn.exec_driver_sql("PRAGMA max_page_count=1")  # SQLite answers as it does on a full disk
            conn.exec_driver_sql("INSERT INTO notes (note) VALUES (?)", (b"x" * MIB,))

    with pytest.raises(StorageFullError):
        disk_full()
    assert not ballast.exists()


# Room that was used once


def test_the_file_shrinks_when_most_of_it_is_free(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'semel.db'}")
    with database.write() as conn:
        conn.exec_driver_sql("CREATE TABLE notes (note BLOB)")
        conn.exec_driver_sql("INSERT INTO notes VALUES (?)", (b"kept",))
        for _ in range(40):
            conn.exec_driver_sql("INSERT INTO notes VALUES (?)", (b"x" * MIB,))
    assert database.shrink() == 0, "nothing is free"
    with database.write() as conn:
        conn.exec_driver_sql("DELETE FROM notes WHERE length(note) > 4")
    pages = [database.shrink() for _ in range(5)]
    assert pages[0] == 2048, "in slices, so that writers do not wait long"
    assert pages[-1] == 0
    with database.read() as conn:
        assert conn.exec_driver_sql("PRAGMA page_count").scalar_one() < 2048
        assert conn.exec_driver_sql("SELECT note FROM notes").scalars().all() == [b"kept"]
        assert conn.exec_driver_sql("PRAGMA integrity_check").scalar_one() == "ok"
    database.close()


def test_a_database_of_an_earlier_version_stays_as_it_is(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "semel.db") as old:
        old.execute("CREATE TABLE notes (note BLOB)")
        old.executemany("INSERT INTO notes VALUES (?)", [(b"x" * MIB,)] * 20)
        old.execute("DELETE FROM notes")
    old.close()
    database = Database(f"sqlite:///{tmp_path / 'semel.db'}")
    assert database.shrink() == 0
    database.close()


# The schema


def test_head_is_the_newest_migration() -> None:
    folder = Path(db_module.__file__).parent / "migrations" / "versions"
    assert max(path.name[1:5] for path in folder.glob("v[0-9]*.py")) == HEAD


def test_an_upgrade_makes_the_tables_and_the_next_one_does_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    database = Database(f"sqlite:///{tmp_path / 'semel.db'}")
    database.upgrade()
    with database.read() as conn:
        tables = set(conn.exec_driver_sql("SELECT name FROM sqlite_master WHERE type = 'table'").scalars())
        assert conn.exec_driver_sql("SELECT version_num FROM alembic_version").scalar() == HEAD
    assert {"vectors", "jobs", "chunks", "batches", "webhooks"} <= tables
    monkeypatch.setattr("alembic.command.upgrade", lambda *_: pytest.fail("the migrations ran again"))
    database.upgrade()
    database.close()


def test_a_database_of_a_newer_semel_is_refused(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'semel.db'}")
    database.upgrade()
    with database.write() as conn:
        conn.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(SchemaError, match=rf"its schema is 9999, this version supports up to {HEAD}"):
        database.upgrade()
    database.close()


def test_a_new_file_is_in_wal_mode_and_waits_for_locks(db: Database) -> None:
    with db.read() as conn:
        assert conn.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert conn.exec_driver_sql("PRAGMA busy_timeout").scalar() == db_module.BUSY_TIMEOUT_S * 1000
        assert conn.exec_driver_sql("PRAGMA page_size").scalar() == 8192


def test_a_file_that_another_process_switches_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    class Locked:
        """A connection whose first switch to WAL is refused."""

        def __init__(self) -> None:
            self.statements: list[str] = []

        def execute(self, statement: str) -> "Locked":
            self.statements.append(statement)
            if self.statements == ["PRAGMA journal_mode", "PRAGMA journal_mode=WAL"]:
                raise sqlite3.OperationalError("database is locked")
            return self

        def fetchone(self) -> tuple[str]:
            return ("delete",)

    monkeypatch.setattr(sqlite_lock.time, "sleep", lambda _: None)
    connection = Locked()
    sqlite_lock.enter_wal(connection, timeout_s=1)  # type: ignore[arg-type]
    assert connection.statements == ["PRAGMA journal_mode", "PRAGMA journal_mode=WAL"] * 2


def test_another_error_of_the_switch_is_raised() -> None:
    class Broken:
        def execute(self, _: str) -> None:
            raise sqlite3.OperationalError("disk I/O error")

    with pytest.raises(sqlite3.OperationalError, match="disk I/O"):
        sqlite_lock.enter_wal(Broken(), timeout_s=1)  # type: ignore[arg-type]


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "semel.db").write_bytes(b"this file is a text and no database at all\n" * 100)
    with pytest.raises(BadInputError, match=r"semel\.db is no SQLite database: move it away"):
        Database(f"sqlite:///{tmp_path / 'semel.db'}").upgrade()
