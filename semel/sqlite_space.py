"""Give the free pages of an SQLite database back to the disk: by itself its file never shrinks."""

import sqlite3

_MOST_PAGES = 2048
"""Pages that one call moves and cuts off, 16 MiB: writers wait for some hundredths of a second meanwhile."""

_FEW_PAGES = 1024
"""So many free pages are not worth it: they are soon used again."""

_INCREMENTAL = 2
"""The value of `auto_vacuum` of a database that can shrink: one that was created with it."""


def give_back(connection: sqlite3.Connection) -> int:
    """Cut free pages off the file, if more than a quarter of it is free.

    Args:
        connection: outside of a transaction.

    Returns:
        How many pages.

    Raises:
        sqlite3.OperationalError: another process has the write lock.
    """

    def read(name: str) -> int:
        (value,) = connection.execute(f"PRAGMA {name}").fetchone()
        return int(value)

    before = read("freelist_count")
    if read("auto_vacuum") != _INCREMENTAL or before <= max(_FEW_PAGES, read("page_count") // 4):
        return 0
    connection.executescript(f"PRAGMA incremental_vacuum({_MOST_PAGES})")  # `execute` would stop after one page
    return before - read("freelist_count")
