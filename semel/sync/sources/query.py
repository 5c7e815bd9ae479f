"""The rows of a query: any database for which SQLAlchemy has a driver."""

from collections.abc import Iterator

from sqlalchemy import create_engine, make_url, text
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, OperationalError, SQLAlchemyError

from semel.errors import BadInputError, UnavailableError
from semel.rows import Record
from semel.sync.sources.rows import Columns

_AT_A_TIME = 1000
"""Rows that the server sends at once: memory stays flat whatever the size of the table."""


class QueryRows:
    """The rows of a statement, read as a stream.

    Args:
        url: an SQLAlchemy URL; `postgresql://` uses psycopg 3.
        statement: a SELECT of the caller.

    Raises:
        BadInputError: not a database URL.
        UnavailableError: the database's driver is not installed.
    """

    def __init__(self, url: str, statement: str, columns: Columns) -> None:
        try:
            parsed = make_url(url)
            if parsed.get_backend_name() == "postgresql":
                parsed = parsed.set(drivername="postgresql+psycopg")
            self._engine = create_engine(parsed)
        except ArgumentError:
            raise BadInputError("the source is not a database URL, such as postgresql://USER@HOST/DATABASE") from None
        except (NoSuchModuleError, ModuleNotFoundError) as error:
            raise UnavailableError(f"the source needs a driver that is not installed: {error}") from None
        self._where = parsed.render_as_string(hide_password=True)
        self._statement = statement
        self._columns = columns

    def __iter__(self) -> Iterator[Record]:
        try:
            with self._engine.connect().execution_options(stream_results=True, yield_per=_AT_A_TIME) as conn:
                rows = conn.execute(text(self._statement))
                missing = [name for name in self._columns.all if name not in rows.keys()]  # noqa: SIM118  # no mapping
                if missing:
                    columns = ", ".join(rows.keys())
                    raise BadInputError(f"the query of {self._where} has no column {missing[0]!r} (it has: {columns})")
                for number, row in enumerate(rows.mappings(), start=1):
                    yield Record(f"row {number}", dict(row))
        except OperationalError as error:
            raise UnavailableError(f"{self._where} failed: {str(error.orig).strip()}") from None
        except SQLAlchemyError as error:
            raise BadInputError(f"the query of {self._where} failed: {getattr(error, 'orig', error)}") from None
        finally:
            self._engine.dispose()
