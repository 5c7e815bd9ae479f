"""The database: engine, transactions, and what SQLite and PostgreSQL need to be told."""

import contextlib
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, NoSuchModuleError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from semel.errors import BadInputError, SchemaError, StorageFullError, UnavailableError

BUSY_TIMEOUT_S = 60
"""Writers queue on SQLite's one write lock; eight of them with 1 MB transactions wait well under a second."""

RESERVE_BYTES = 4 << 20
"""Room above `max_bytes` that only bookkeeping may use, so that a full cache can still record why a job failed."""

BALLAST_BYTES = 1 << 20
"""A file beside the SQLite database that is given up when the disk is full, for the same purpose."""

HEAD = "0008"
"""The newest migration (semel/migrations/versions); a test compares."""


class Database:
    """Transactions on one SQLite file or PostgreSQL database. Safe to share between threads.

    Args:
        url: an SQLAlchemy URL, `sqlite:///path` or `postgresql://…` (psycopg 3 is filled in).
        max_bytes: SQLite only, a bound on the file.
        mmap_bytes: SQLite only, map so much of the file into memory. Look-ups are a quarter faster; but the pages
            count as the process's own once for each connection, and a service has many.
    """

    def __init__(self, url: str, *, max_bytes: int | None = None, mmap_bytes: int = 0) -> None:
        try:
            self._url = make_url(url)
        except ArgumentError:
            raise BadInputError(f"SEMEL_DATABASE_URL is not a database URL: {url!r}") from None
        if self._url.get_backend_name() == "postgresql":
            self._url = self._url.set(drivername="postgresql+psycopg")
        self.dialect = self._url.get_backend_name()
        self._max_bytes = max_bytes
        self._mmap_bytes = mmap_bytes
        self._ballast: Path | None = None
        self._engine = self._create()

    def __str__(self) -> str:
        return self._url.render_as_string(hide_password=True)

    def _create(self) -> Engine:
        if self.dialect == "sqlite":
            return self._create_sqlite()
        if self.dialect != "postgresql":
            raise BadInputError(f"semel stores in SQLite or PostgreSQL, not in {self.dialect!r}")
        try:
            return create_engine(self._url, pool_size=16, max_overflow=48, pool_pre_ping=True)
        except (NoSuchModuleError, ModuleNotFoundError):
            raise UnavailableError("PostgreSQL needs psycopg: pip install 'semel[postgres]'") from None

    def _create_sqlite(self) -> Engine:
        if not self._url.database or self._url.database == ":memory:":
            raise BadInputError("semel's SQLite database must be a file: several processes share it")
        Path(self._url.database).parent.mkdir(parents=True, exist_ok=True)
        self._ballast = Path(f"{self._url.database}.ballast")
        with contextlib.suppress(OSError), self._ballast.open("xb") as file:  # it is there, or there is no room
            file.write(bytes(BALLAST_BYTES))
        # One connection a thread at the most: a worker has 64 task threads.
        engine = create_engine(
            self._url,
            pool_size=16,
            max_overflow=80,
            connect_args={"timeout": BUSY_TIMEOUT_S, "isolation_level": None, "check_same_thread": False},
        )
        event.listen(engine, "connect", self._set_pragmas)
        event.listen(engine, "begin", self._begin_sqlite)
        return engine

    def _set_pragmas(self, connection: sqlite3.Connection, _record: Any) -> None:
        run = connection.execute
        run(f"PRAGMA busy_timeout={BUSY_TIMEOUT_S * 1000}")
        run("PRAGMA page_size=8192")  # five vectors of 384 floats a page; 20 % faster look-ups than 4096 measured
        _enter_wal(connection)  # readers do not wait for the writer
        run("PRAGMA synchronous=NORMAL")  # a power cut may lose the last commits, never tear the file
        run("PRAGMA cache_size=-8192")  # 8 MiB a connection; the rest is the system's page cache
        run(f"PRAGMA mmap_size={self._mmap_bytes}")
        run("PRAGMA journal_size_limit=67108864")  # give the log's disk space back after a burst

    def _begin_sqlite(self, conn: Connection) -> None:
        options = conn.get_execution_options()
        if options.get("semel_single"):
            return
        if not options.get("semel_write"):
            conn.exec_driver_sql("BEGIN")
            return
        if self._max_bytes is not None:
            limit = self._max_bytes + (RESERVE_BYTES if options.get("semel_reserve") else 0)
            page_bytes = conn.exec_driver_sql("PRAGMA page_size").scalar_one()
            conn.exec_driver_sql(f"PRAGMA max_page_count={limit // page_bytes}")
        # IMMEDIATE takes the write lock now, where the busy timeout applies. A read that turns
        # into a write later fails at once with "database is locked".
        conn.exec_driver_sql("BEGIN IMMEDIATE")

    @contextmanager
    def read(self, *, single: bool = False) -> Iterator[Connection]:
        """A consistent snapshot.

        Args:
            single: for one statement, which is a snapshot by itself: SQLite is spared a BEGIN.

        Raises:
            UnavailableError: the database does not answer.
        """
        options = {"semel_single": True} if single else {}
        with self._translated(), self._engine.connect().execution_options(**options) as conn:
            yield conn

    @contextmanager
    def write(self, *, reserve: bool = False) -> Iterator[Connection]:
        """A transaction, committed at the end of the block, rolled back on an error.

        Args:
            reserve: bookkeeping that may use the room kept back by `RESERVE_BYTES`.

        Raises:
            StorageFullError: no room; nothing of the block was written.
            UnavailableError: the database does not answer.
        """
        options = {"semel_write": True, "semel_reserve": reserve}
        with self._translated(), self._engine.connect().execution_options(**options) as conn, conn.begin():
            yield conn

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except PoolTimeoutError as error:
            raise UnavailableError(f"the database {self} is busy: no connection was free in time") from error
        except DBAPIError as error:
            reason = str(error.orig)
            # SQLITE_FULL, or ENOSPC as SQLite and PostgreSQL (SQLSTATE 53100) word it.
            if "is full" in reason or "No space left" in reason or "could not extend file" in reason:
                if self._ballast is not None:
                    self._ballast.unlink(missing_ok=True)
                raise StorageFullError(str(self)) from error
            if isinstance(error, DataError):  # PostgreSQL takes no NUL in a text
                raise BadInputError(f"the database cannot hold a value that was given: {reason.strip()}") from error
            if isinstance(error, OperationalError):
                raise UnavailableError(f"the database {self} failed: {reason.strip()}") from error
            raise

    def ping(self) -> None:
        """Raises UnavailableError when the database does not answer."""
        with self.read() as conn:
            conn.exec_driver_sql("SELECT 1")

    def upgrade(self) -> None:
        """Bring the tables to this version's schema; quick when they are.

        Raises:
            SchemaError: the database was made by a newer semel.
        """
        current = self._revision()
        if current == HEAD:
            return
        if current is not None and current > HEAD:
            raise SchemaError(
                f"the database {self} was upgraded by a newer semel (schema {current}, this one knows {HEAD}); "
                "upgrade semel, or use another SEMEL_HOME"
            )
        from alembic import command  # 150 ms to import, needed once in a database's life
        from alembic.config import Config

        config = Config()
        config.set_main_option("script_location", "semel:migrations")
        with self.write() as conn:  # the write lock makes a second process wait here, then find it done
            if self.dialect == "postgresql":
                conn.exec_driver_sql("SELECT pg_advisory_xact_lock(5362)")
            config.attributes["connection"] = conn
            command.upgrade(config, "head")

    def _revision(self) -> str | None:
        with self.read() as conn:
            exists = conn.dialect.has_table(conn, "alembic_version")
            return conn.exec_driver_sql("SELECT version_num FROM alembic_version").scalar() if exists else None

    def close(self) -> None:
        self._engine.dispose()


def _enter_wal(connection: sqlite3.Connection) -> None:
    """Switch a new file to WAL; the switch ignores the busy timeout, so processes that start together retry."""
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
                connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
