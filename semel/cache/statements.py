"""The statements that move many vectors, in the form that suits each database.

SQLite runs inside this process, and Python's driver gives up Python's lock for every row that a statement returns or
takes. Where other threads compute, each return of the lock takes up to `sys.getswitchinterval()`, 5 ms: next to one
busy thread, 1,000 rows per second were read instead of 300,000. So on SQLite a SELECT answers with one row that holds
all rows, and an INSERT takes hundreds of them ([ADR 34](../../docs/adr/0034-few-steps-for-sqlite.md)).
"""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import accumulate, chain, pairwise
from typing import Any, TypeAlias

from sqlalchemy import Connection

from semel.postgres import BINARY_ROWS

COLUMNS = ("key", "tokens", "truncated", "crc", "data")
"""The columns that can be read, in the order in which `Columns` has them."""

Columns: TypeAlias = Sequence[Sequence[Any]]
"""Some of `COLUMNS`, each with one value for each row; no columns at all where no row was found."""

_FEW = 4
"""So few keys are read row by row: the other statement takes longer to prepare."""

_INSERTED = 256
"""Rows in one INSERT. SQLite allows 32,766 parameters, from version 3.32 on."""

_PARTS = {
    "key": ("CAST(group_concat(key, '') AS BLOB)",),
    "tokens": ("group_concat(tokens)",),
    "truncated": ("group_concat(truncated)",),
    "crc": ("group_concat(crc)",),
    "data": ("group_concat(length(CAST(data AS BLOB)))", "CAST(group_concat(data, '') AS BLOB)"),
}

_KEY_BYTES = 32


def select(conn: Connection, keys: Sequence[bytes], *, columns: int, whole: bool = True) -> Columns:
    """Return the rows that some keys have, in no fixed order.

    Args:
        keys: 32 bytes each, without duplicates.
        columns: how many of `COLUMNS`, from the first one.
        whole: False reads them row by row, with each value as the database holds it. Otherwise, a value of another
            type than the column's, as damage leaves it behind, may come back as another value.
    """
    names = COLUMNS[:columns]
    if conn.dialect.name == "postgresql":
        statement = f"SELECT {', '.join(names)} FROM vectors WHERE key = ANY(%b)"
        return _by_column(conn.exec_driver_sql(statement, (list(keys),), execution_options=BINARY_ROWS).cursor)
    where = f"FROM vectors WHERE key IN ({','.join('?' * len(keys))})"
    if whole and len(keys) > _FEW and _joins_bytes():
        parts = ", ".join(chain.from_iterable(_PARTS[name] for name in names))
        found = _split(conn.exec_driver_sql(f"SELECT {parts} {where}", tuple(keys)).one())
        if found is not None:
            return found
    return _by_column(conn.exec_driver_sql(f"SELECT {', '.join(names)} {where}", tuple(keys)).cursor)


def _by_column(cursor: Any) -> Columns:
    """The rows of a cursor; plain tuples, because building SQLAlchemy's rows would take a fifth of a look-up."""
    return list(zip(*cursor.fetchall(), strict=True))


@cache
def _joins_bytes() -> bool:
    """Whether this SQLite joins BLOBs that contain zeros; old versions stop at the first one."""
    with sqlite3.connect(":memory:") as memory:
        query = "SELECT CAST(group_concat(b, '') AS BLOB) FROM (SELECT x'0001' AS b UNION ALL SELECT x'0200ff')"
        (joined,) = memory.execute(query).fetchone()
    memory.close()
    return bool(joined == b"\x00\x01\x02\x00\xff")


def _split(row: Sequence[Any]) -> Columns | None:
    """The columns in a row of `_PARTS`; None if its parts do not fit together, because values are damaged."""
    keys, *rest = row
    if keys is None:
        return []
    count, odd = divmod(len(keys), _KEY_BYTES)
    try:
        lists: list[Sequence[Any]] = [[int(number) for number in part.split(",")] for part in rest[:4]]
    except ValueError:
        return None
    if odd or any(len(each) != count for each in lists):
        return None
    if len(rest) > 4:
        data, sizes = rest[4], lists.pop()
        if len(data) != sum(sizes):
            return None
        lists.append([data[start:end] for start, end in pairwise(chain([0], accumulate(sizes)))])
    return [[keys[at : at + _KEY_BYTES] for at in range(0, len(keys), _KEY_BYTES)], *lists]


def insert(conn: Connection, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> int:
    """Insert rows into `vectors`, except those whose key has a row. Returns the number of new rows."""
    start = f"INSERT INTO vectors ({', '.join(columns)}) VALUES "
    if conn.dialect.name == "postgresql":
        marks = f"({', '.join(['%s'] * len(columns))})"
        return conn.exec_driver_sql(f"{start}{marks} ON CONFLICT DO NOTHING", list(map(tuple, rows))).rowcount
    marks = f"({','.join('?' * len(columns))})"
    return sum(
        conn.exec_driver_sql(
            f"{start}{','.join([marks] * len(part))} ON CONFLICT DO NOTHING", tuple(chain.from_iterable(part))
        ).rowcount
        for part in _parts(rows)
    )


def _parts(rows: Sequence[Iterable[Any]]) -> Iterator[Sequence[Iterable[Any]]]:
    return (rows[at : at + _INSERTED] for at in range(0, len(rows), _INSERTED))


def delete(conn: Connection, rows: Sequence[tuple[bytes, int, bytes]]) -> None:
    """Delete rows of which key, checksum and data are exactly these, also where damage gave them another type."""
    mark = "%s" if conn.dialect.name == "postgresql" else "?"
    where = f"key = {mark} AND crc = {mark} AND data = {mark}"
    conn.exec_driver_sql(f"DELETE FROM vectors WHERE {where}", list(rows))
