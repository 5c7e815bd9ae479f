"""The services of an API in this process, without HTTP and background threads: a test takes each step itself."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fakeredis

from semel.api.services import Services, assemble
from semel.settings import Settings
from semel.tasks.fleet.card import WorkerCard
from semel.values.text import Lane
from tests.support.service import MODELS, InlineWorker


@dataclass(frozen=True)
class Parts:
    """The services, and the worker and Redis behind them."""

    services: Services
    worker: InlineWorker
    redis_server: fakeredis.FakeServer

    @contextmanager
    def redis_gone(self) -> Iterator[None]:
        """Make Redis unreachable while the block runs."""
        self.redis_server.connected = False
        try:
            yield
        finally:
            self.redis_server.connected = True

    def run_waiting(self) -> None:
        """Run the chunks of messages that were lost while the worker was paused."""
        self.worker.paused = False
        self.services.sweeper.sweep(empty_queues=[(Lane.BULK, "cpu")])
        self.services.fleet.dispatcher.top_up(Lane.BULK, "cpu")

    def publish(self, card: WorkerCard) -> None:
        """Put another worker on the roster."""
        self.services.fleet.roster.beat(card)
        for roster in (self.services.fleet.roster, self.services.watch.roster):
            roster.live()  # what `recently_live` returns from now on


@contextmanager
def parts(folder: Path, **settings: Any) -> Iterator[Parts]:
    """The services on the database in `folder`, with one worker that runs each message at once."""
    chosen = Settings(home=folder, **{"models": MODELS, "default_model": "fake", **settings})
    server = fakeredis.FakeServer()
    client = fakeredis.FakeRedis(server=server)
    worker = InlineWorker(chosen, client)
    services = assemble(chosen, client, worker)  # type: ignore[arg-type]  # only send_task is used
    try:
        worker.join(services)
        yield Parts(services, worker, server)
    finally:
        services.fleet.outbox.close()
        services.watch.machine.close()
        services.stores.db.close()
        worker.engine.close()
