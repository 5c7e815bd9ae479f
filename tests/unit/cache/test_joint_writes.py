"""Writers that come while a transaction runs share the next one."""

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from semel.cache.joint_writes import JointWrites
from semel.db import Database
from semel.errors import StorageFullError
from tests.support.databases import sqlite_database
from tests.support.processes import wait_until


class Held(JointWrites):
    """The first write holds its transaction open until `go` is set.

    Attributes:
        transactions: the writes of each transaction.
    """

    def __init__(self, db: Database) -> None:
        super().__init__(db)
        self.go, self.running = threading.Event(), threading.Event()
        self.transactions: list[int] = []

    def first(self, _conn: Any) -> int:
        self.running.set()
        assert self.go.wait(20)
        return 1

    def _counts(self, conn: Any, taken: Any) -> list[int]:  # type: ignore[override]
        self.transactions.append(len(taken))
        return super()._counts(conn, taken)


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Held]:
    with sqlite_database(tmp_path) as db:
        yield Held(db)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(10) as threads:
        yield threads


def start(held: Held, pool: ThreadPoolExecutor, writes: list[Any]) -> list[Future[int]]:
    """The first write, and others that wait for it."""
    futures = [pool.submit(held.run, held.first)]
    assert held.running.wait(20)
    futures += [pool.submit(held.run, write) for write in writes]
    wait_until(lambda: len(held._waiting) == len(writes))
    held.go.set()
    return futures


def test_those_who_wait_share_one_transaction_and_each_gets_its_own_count(held: Held, pool: ThreadPoolExecutor) -> None:
    futures = start(held, pool, [lambda _conn, count=count: count for count in (0, 5, 7)])
    assert [future.result(20) for future in futures] == [1, 0, 5, 7]
    assert held.transactions == [1, 3]


def test_an_error_reaches_all_who_shared_the_transaction_and_nobody_after_them(
    held: Held, pool: ThreadPoolExecutor
) -> None:
    def full(_conn: Any) -> int:
        raise StorageFullError("here")

    first, *others = start(held, pool, [lambda _conn: 5, full])
    assert first.result(20) == 1
    for future in others:
        with pytest.raises(StorageFullError):
            future.result(20)
    assert held.run(lambda _conn: 3) == 3


def test_what_a_failed_transaction_wrote_is_undone(held: Held) -> None:
    def write(conn: Any) -> int:
        conn.exec_driver_sql("INSERT INTO webhooks (job_id, url, attempts, due_at) VALUES ('x', 'y', 0, 0)")
        raise StorageFullError("here")

    with pytest.raises(StorageFullError):
        held.run(write)
    with held._db.read() as conn:
        assert conn.exec_driver_sql("SELECT count(*) FROM webhooks").scalar_one() == 0
