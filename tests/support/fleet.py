"""A fleet without processes: fakeredis, a database in a folder, and a queue that records what is sent."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fakeredis

from semel.cache.catalog import Catalog
from semel.cache.keys import input_keys
from semel.cache.store import VectorStore
from semel.db import Database
from semel.tasks.fleet.card import WorkerCard
from semel.tasks.fleet.roster import Roster
from semel.tasks.jobs.rows import NewChunk
from semel.tasks.queue.message import Request
from semel.values.job import Job
from semel.values.model import Space
from semel.values.text import Lane
from tests.support.databases import sqlite_database
from tests.support.jobs import Jobs
from tests.support.values import space

SPACE = space()
"""A vector space of the model `m`."""

OTHER = space(weights="w2")
"""The space of another build of the same model."""


@dataclass
class Clock:
    """Stands in for the module `time`; it moves only when a test or the code moves it.

    Attributes:
        on_sleep: called at each `sleep`, after the time has passed.
    """

    now: float = 1000.0
    slept: list[float] = field(default_factory=list)
    on_sleep: Callable[[], None] = lambda: None

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now

    def perf_counter(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.slept.append(seconds)
        self.on_sleep()


@dataclass
class Outbox:
    """Stands in for Celery: records what is sent.

    Attributes:
        sent: (task, arguments, queue) of every message.
        shown: what Flower would show of every message.
        error: raised instead of sending, if set.
        on_send: called with the task and its arguments after the message was recorded.
    """

    sent: list[tuple[str, list[Any], str]] = field(default_factory=list)
    shown: list[str] = field(default_factory=list)
    error: Exception | None = None
    on_send: Callable[[str, list[Any]], None] = lambda _task, _args: None

    def send_task(self, task: str, *, args: list[Any], queue: str, argsrepr: str, ignore_result: bool) -> None:
        """Record a message, in place of Celery's method of this name."""
        assert ignore_result, "the cache is the result backend"
        if self.error is not None:
            raise self.error
        self.sent.append((task, args, queue))
        self.shown.append(argsrepr)
        self.on_send(task, args)

    @property
    def queues(self) -> list[str]:
        """The queue of every message."""
        return [queue for _, _, queue in self.sent]


def card(device: str, *spaces: Space, **changed: Any) -> WorkerCard:
    """The card of a live worker that serves these spaces."""
    given: dict[str, Any] = {
        "id": f"{device}@host",
        "host": "host",
        "pid": 1,
        "started_at": 0.0,
        "models": list(dict.fromkeys(space.model for space in spaces)),
        "spaces": [space.fingerprint.hex() for space in spaces],
    }
    return WorkerCard(device=device, **{**given, **changed})


class Fleet:
    """Redis, a database and a queue that workers and senders share.

    Attributes:
        server: set its `connected` to False to make Redis unreachable.
    """

    def __init__(self, db: Database) -> None:
        self.db = db
        self.server = fakeredis.FakeServer()
        self.redis = fakeredis.FakeRedis(server=self.server)
        self.roster = Roster(self.redis)
        self.jobs = Jobs(db, window_s=60, retention_s=60)
        self.store = VectorStore(db)
        self.catalog = Catalog(db, default_model="m")
        self.outbox = Outbox()

    def join(self, device: str, *spaces: Space, **changed: Any) -> WorkerCard:
        """Put a worker on the roster."""
        joined = card(device, *(spaces or (SPACE,)), **changed)
        self.roster.beat(joined)
        self.roster.live()  # renews what `recently_live` returns
        return joined

    def leave(self, worker: WorkerCard) -> None:
        """Remove a worker from the roster."""
        self.roster.leave(worker.id)
        self.roster.live()

    def submit(self, name: str = "job", *, chunks: int = 1, device: str = "cpu", **options: Any) -> Job:
        """Submit a job of chunks with one text each."""
        into = options.pop("space", SPACE)
        lane = options.pop("lane", Lane.BULK)
        job = self.jobs.add(into, lane=lane, device=device, why="test", **{"truncate": True, **options})
        texts = [f"{name} {i}" for i in range(chunks)]
        new = [NewChunk(i, input_keys(into.fingerprint, [text]), [text]) for i, text in enumerate(texts)]
        self.jobs.add_chunks(job, new, lookup=self.store.lookup_on)
        return self.jobs.seal(job.id)


@contextmanager
def fleet_in(folder: Path) -> Iterator[Fleet]:
    """An empty fleet on a database in `folder`."""
    with sqlite_database(folder) as db:
        yield Fleet(db)


def requests_of(*request_ids: str) -> list[Request]:
    """Requests with these ids, for tests in which nothing else of them matters."""
    return [Request(request_id, ["text"], sent_at=1.0, expires_at=time.time() + 60) for request_id in request_ids]
