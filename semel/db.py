"""The database: its engine, its transactions, and the configuration of SQLite and PostgreSQL."""

import contextlib
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, cast

from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, NoSuchModuleError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from semel.clock import DatabaseClock
from semel.errors import BadInputError, SchemaError, StorageFullError, UnavailableError
from semel.postgres import CONNECT_TIMEOUT_S, HALF_OPEN, UNLIMITED, send_binary, set_timeouts
from semel.private import private_file, private_folder
from semel.sqlite_lock import begin_write, enter_wal
from semel.sqlite_space import give_back

BUSY_TIMEOUT_S = 60
"""Writers queue on SQLite's single write lock; eight of them with 1 MB transactions wait well under a second."""

RESERVE_BYTES = 4 << 20
"""Room above `max_bytes` that only bookkeeping may use, so that a full database can still record why a job failed."""

BALLAST_BYTES = 1 << 20
"""Size of a file next to the SQLite database that is deleted when the disk is full, for the same purpose."""

HEAD = "0015"
"""The newest migration in semel/migrations/versions; a test compares the two."""


class Database:
    """Transactions on one SQLite file or PostgreSQL database. Safe to share between threads.

    Args:
        url: an SQLAlchemy URL, `sqlite:///path` or `postgresql://…` (the driver psycopg 3 is filled in).
        max_bytes: SQLite only, the maximum size of the file.
        mmap_bytes: SQLite only, how much of the file to map into memory. Look-ups are a quarter faster; but the pages
            count as the process's own once for each connection, and a service has many.
        kept_connections: PostgreSQL only, how many idle connections stay open. PostgreSQL allows 100 by default, for
            all processes together.

    Raises:
        BadInputError: not a database URL, or an unsupported database.
        UnavailableError: PostgreSQL's driver is not installed.
    """

    def __init__(
        self, url: str, *, max_bytes: int | None = None, mmap_bytes: int = 0, kept_connections: int = 2
    ) -> None:
        try:
            self._url = make_url(url)
        except ArgumentError:
            example = "sqlite:////FOLDER/semel.db or postgresql://USER:PASSWORD@HOST/DATABASE"
            raise BadInputError(f"SEMEL_DATABASE_URL is not a database URL, such as {example}") from None
        if self._url.get_backend_name() == "postgresql":
            self._url = self._url.set(drivername="postgresql+psycopg")
        self.dialect = self._url.get_backend_name()
        self._max_bytes = max_bytes
        self._mmap_bytes = mmap_bytes
        self._kept_connections = kept_connections
        self._ballast: Path | None = None
        self._writers = threading.Lock()
        self.clock = DatabaseClock()
        self._engine = self._create()
        self._engine.update_execution_options(semel_clock=self.clock)

    def __str__(self) -> str:
        return self._url.render_as_string(hide_password=True)

    def _create(self) -> Engine:
        if self.dialect == "sqlite":
            return self._create_sqlite()
        if self.dialect != "postgresql":
            raise BadInputError(f"SEMEL_DATABASE_URL names the database {self.dialect!r}: use sqlite or postgresql")
        try:
            engine = create_engine(
                self._url,
                pool_size=self._kept_connections,
                max_overflow=64 - self._kept_connections,
                pool_pre_ping=True,
                connect_args={"connect_timeout": CONNECT_TIMEOUT_S, **HALF_OPEN},
            )
        except (NoSuchModuleError, ModuleNotFoundError):
            raise UnavailableError("PostgreSQL needs psycopg: run pip install 'semel[postgres]'") from None
        event.listen(engine, "connect", set_timeouts)
        event.listen(engine, "before_cursor_execute", send_binary)
        return engine

    def _create_sqlite(self) -> Engine:
        if not self._url.database or self._url.database == ":memory:":
            raise BadInputError("the SQLite database must be a file, because several processes share it")
        private_folder(Path(self._url.database).parent)
        private_file(Path(self._url.database))  # its log and index get the same mode
        self._ballast = Path(f"{self._url.database}.ballast")
        with contextlib.suppress(OSError), self._ballast.open("xb") as file:  # it exists already, or the disk is full
            file.write(bytes(BALLAST_BYTES))
        # At most one connection for each thread: a worker has 64 task threads.
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
        run("PRAGMA page_size=8192")  # five vectors of 384 floats per page; measured: look-ups 20 % faster than at 4096
        with contextlib.suppress(sqlite3.OperationalError):  # another process creates the file, and does the same
            if run("PRAGMA page_count").fetchone() == (0,):
                run("PRAGMA auto_vacuum=INCREMENTAL")  # see `shrink`; takes effect in a new file only
        enter_wal(connection, timeout_s=BUSY_TIMEOUT_S)  # readers do not wait for the writer
        run("PRAGMA synchronous=NORMAL")  # a power cut may lose the last commits, but never damages the file
        run("PRAGMA cache_size=-8192")  # 8 MiB per connection; the system's page cache does the rest
        run(f"PRAGMA mmap_size={self._mmap_bytes}")
        run("PRAGMA journal_size_limit=67108864")  # return the log's disk space after a burst

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
        begin_write(conn, timeout_s=BUSY_TIMEOUT_S)

    @contextmanager
    def read(self, *, single: bool = False) -> Iterator[Connection]:
        """Open a connection that reads a consistent snapshot.

        Args:
            single: the block runs one statement, which is a snapshot by itself and saves SQLite a BEGIN.

        Raises:
            UnavailableError: the database does not answer.
        """
        options = {"semel_single": True} if single else {}
        with self._translated(), self._engine.connect().execution_options(**options) as conn:
            yield conn

    @contextmanager
    def write(self, *, reserve: bool = False, unlimited: bool = False) -> Iterator[Connection]:
        """Open a transaction that commits at the end of the block and rolls back on an error.

        Args:
            reserve: this is bookkeeping, which may use the room of `RESERVE_BYTES`.
            unlimited: PostgreSQL's time-outs do not apply: a statement may take minutes.

        Raises:
            StorageFullError: there is no room left; nothing of the block was written.
            UnavailableError: the database does not answer.
            BadInputError: the database cannot store one of the values.
        """
        options = {"semel_write": True, "semel_reserve": reserve}
        with (
            self._translated(),
            self._writers_turn(),
            self._engine.connect().execution_options(**options) as conn,
            conn.begin(),
        ):
            if unlimited and self.dialect == "postgresql":
                conn.exec_driver_sql(UNLIMITED)
            yield conn

    @contextmanager
    def several(self) -> Iterator[Callable[..., AbstractContextManager[Connection]]]:
        """Open one connection for several transactions, which share its temporary tables.

        Yields:
            A function that opens the next transaction; its `write` decides whether it takes SQLite's write lock.
            PostgreSQL's time-outs do not apply, and bookkeeping's reserve may be used. Errors are those of `write`.
        """
        with self._translated(), self._engine.connect() as conn:

            @contextmanager
            def transaction(*, write: bool) -> Iterator[Connection]:
                turn = self._writers_turn() if write else contextlib.nullcontext()
                with turn, conn.execution_options(semel_write=write, semel_reserve=True).begin():
                    if self.dialect == "postgresql":
                        conn.exec_driver_sql(UNLIMITED)
                    yield conn

            yield transaction

    @contextmanager
    def _writers_turn(self) -> Iterator[None]:
        """Let the writers of this process wait for each other here: for SQLite's own lock they would have to poll."""
        if self.dialect != "sqlite":
            yield
            return
        taken = self._writers.acquire(timeout=BUSY_TIMEOUT_S)
        try:
            yield  # if it was not taken in time, SQLite's own lock is not free either, and gives the error
        finally:
            if taken:
                self._writers.release()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except PoolTimeoutError as error:
            raise UnavailableError(f"the database {self} is busy: no connection became free in time") from error
        except DBAPIError as error:
            reason = str(error.orig)
            # SQLITE_FULL, or ENOSPC in the words of SQLite and PostgreSQL (SQLSTATE 53100).
            if "is full" in reason or "No space left" in reason or "could not extend file" in reason:
                if self._ballast is not None:
                    self._ballast.unlink(missing_ok=True)
                raise StorageFullError(str(self)) from error
            if isinstance(error, DataError):  # PostgreSQL refuses NUL in a text
                raise BadInputError(f"the database cannot store one of the values: {reason.strip()}") from error
            if "file is not a database" in reason:
                raise BadInputError(
                    f"{self._url.database} is no SQLite database: move it away, or set SEMEL_HOME to another folder"
                ) from error
            if "readonly database" in reason or "unable to open database file" in reason:
                raise BadInputError(
                    f"{self._url.database} cannot be written ({reason.strip()}): check its owner and mode, or set "
                    "SEMEL_HOME to a folder that you may write"
                ) from error
            if isinstance(error, OperationalError) or error.connection_invalidated:
                raise UnavailableError(f"the database {self} failed: {reason.strip()}") from error
            raise

    def shrink(self) -> int:
        """Give pages of SQLite that are free for good back to the disk; returns how many. PostgreSQL does it by itself.

        Raises:
            UnavailableError: the database does not answer.
        """
        if self.dialect != "sqlite":
            return 0
        with self._writers_turn(), self.read(single=True) as conn:
            return give_back(cast(sqlite3.Connection, conn.connection.driver_connection))

    def now(self) -> float:
        """The database's time, in Unix seconds. Raises UnavailableError."""
        if self.dialect == "sqlite" or not self.clock.is_due:
            return self.clock.estimate()
        with self.read() as conn:
            return self.clock.now(conn)

    def ping(self) -> None:
        """Check the connection. Raises UnavailableError if the database does not answer."""
        with self.read() as conn:
            conn.exec_driver_sql("SELECT 1")

    def upgrade(self) -> None:
        """Migrate the tables to this version's schema; quick if they are current.

        Raises:
            SchemaError: a newer version of semel upgraded the database.
            UnavailableError: the database does not answer.
        """
        current = self._revision()
        if current == HEAD:
            return
        if current is not None and current > HEAD:
            raise SchemaError(
                f"the database {self} was upgraded by a newer semel (its schema is {current}, this version supports up "
                f"to {HEAD}); upgrade semel, or use another SEMEL_HOME"
            )
        from alembic import command  # takes 150 ms to import, and is needed once per database and version
        from alembic.config import Config

        config = Config()
        config.set_main_option("script_location", "semel:migrations")
        with self.write(
            unlimited=True
        ) as conn:  # a second process waits here for the write lock, then finds nothing left to do
            if self.dialect == "postgresql":
                conn.exec_driver_sql("SELECT pg_advisory_xact_lock(5362)")
            config.attributes["connection"] = conn
            command.upgrade(config, "head")

    def _revision(self) -> str | None:
        with self.read() as conn:
            exists = conn.dialect.has_table(conn, "alembic_version")
            return conn.exec_driver_sql("SELECT version_num FROM alembic_version").scalar() if exists else None

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()
