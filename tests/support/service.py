"""The whole API in this process, with a real database, engine and pipeline, a fake model, and fakeredis as the Redis.

The queue is replaced too: a message runs at once, in the thread that sends it, in the code of the worker.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fakeredis
from fastapi import FastAPI
from fastapi.testclient import TestClient

from semel.api.app import create_app
from semel.api.services import Services, assemble
from semel.backends.engine import Engine
from semel.cache.claims import LocalClaims
from semel.settings import Settings
from semel.tasks.fleet.card import ModelRate, WorkerCard
from semel.tasks.fleet.meter import Message, Meter
from semel.tasks.jobs.chunks import ChunkStore
from semel.tasks.queue.message import RequestMessage
from semel.tasks.queue.names import EMBED_CHUNKS, EMBED_SMALL_CHUNKS, EMBED_TEXTS
from semel.tasks.worker.chunk import ChunkRunner
from semel.tasks.worker.device_loss import DeviceLoss
from semel.tasks.worker.embed import Embedder
from semel.tasks.worker.held import HeldRequests
from semel.tasks.worker.models import LoadedModels
from semel.tasks.worker.pass_on import PassOn
from semel.tasks.worker.replies import Replies
from semel.values.model import ModelEntry
from semel.values.text import Lane
from tests.support.databases import migrated

FAKE = "fake:?dim=16&max_tokens=20&fail_on=poison"
"""A model that reads at most 20 words and fails on `poison`."""

MODELS = {
    "fake": ModelEntry(FAKE),
    "prompted": ModelEntry("fake:?dim=16", prompts={"query": "find ", "document": "text "}),
    "reranker": ModelEntry("fake:?fail_on=poison&max_tokens=20", kind="cross-encoder"),
}


class InlineWorker:
    """A worker that runs each message in the thread that sends it.

    Attributes:
        paused: True drops every message, as an emptied Redis does.
        sent: (task, arguments, queue) of every message.
    """

    def __init__(self, settings: Settings, client: Any) -> None:
        self._settings = settings
        self._client = client
        self.engine = Engine()
        self.models = LoadedModels(settings, self.engine, device="auto")  # a fake model then needs no framework
        self.meter = Meter()
        self.paused = False
        self.sent: list[tuple[str, list[Any], str]] = []

    def join(self, services: Services) -> None:
        """Serve the models of the settings, and stay on the roster until the test ends."""
        stores = services.stores
        embedder = Embedder(self.engine, stores.vectors, LocalClaims())
        chunks = ChunkStore(stores.db, retention_s=self._settings.job_retention_s)
        self._chunks = ChunkRunner(
            stores.jobs,
            chunks,
            stores.vectors,
            embedder,
            self.models,
            owner="inline",
            lease_s=60,
            max_attempts=5,
            window=lambda: services.fleet.dispatcher.window(Lane.BULK, "cpu"),
            send=services.fleet.dispatcher.send,
            refuse=lambda *_: False,
            record=self._record,
        )
        self._replies = Replies(
            self._client,
            self.models,
            embedder,
            DeviceLoss(),
            HeldRequests(self._client, worker_id="inline"),
            PassOn(self, self._client, services.fleet.failover, "inline", "cpu", "auto"),  # type: ignore[arg-type]
            refuse=lambda *_: False,
            record=self._record,
        )
        served = self.models.available(self.models.entries)
        spaces = [space for by_prompt in served.values() for space in by_prompt.values()]
        stores.catalog.publish(spaces, device="cpu")
        self._card = WorkerCard(
            id="inline", device="cpu", host="here", pid=1, started_at=0.0, models=list(served), loaded=["fake"],
            spaces=[space.fingerprint.hex() for space in spaces], texts_per_s=1000.0,
            rates=dict.fromkeys(served, ModelRate(5000.0, 5.0)),
        )  # fmt: skip
        self.beat(services)

    def beat(self, services: Services) -> None:
        """Appear on the roster."""
        services.fleet.roster.beat(self._card)
        self._client.persist(f"semel:worker:{self._card.id}")  # it sends no further heartbeats

    def leave(self, services: Services) -> None:
        """Disappear from the roster."""
        services.fleet.roster.leave(self._card.id)
        services.fleet.roster.live()

    def _record(self, message: Message) -> None:
        self.meter.record(message)

    def send_task(self, task: str, *, args: list[Any], queue: str, **_: Any) -> None:
        """Run a message, in place of Celery's method of this name."""
        self.sent.append((task, args, queue))
        if self.paused:
            return
        if task in (EMBED_CHUNKS, EMBED_SMALL_CHUNKS):
            self._chunks.run([(job_id, position) for job_id, position in args[0]])
        else:
            message = RequestMessage.from_message(args[0])
            (self._replies.embed if task == EMBED_TEXTS else self._replies.read)(message)


@dataclass(frozen=True)
class Service:
    """A running API and its parts."""

    http: TestClient
    app: FastAPI
    services: Services
    worker: InlineWorker
    redis: "fakeredis.FakeRedis"


@contextmanager
def service(folder: Path, *, models: dict[str, ModelEntry] | None = None, **settings: Any) -> Iterator[Service]:
    """Run the API with one worker, on a database in `folder`, while the block runs.

    Args:
        folder: SEMEL_HOME.
        models: instead of MODELS; one of them is `fake`, the default model.
        settings: more settings, by name.
    """
    chosen = Settings(home=folder, models=models or MODELS, default_model="fake", **settings)
    migrated(folder / "semel.db")
    client = fakeredis.FakeRedis()
    worker = InlineWorker(chosen, client)

    def build(_: Settings) -> Services:
        made = assemble(chosen, client, worker)  # type: ignore[arg-type]  # only send_task is used
        worker.join(made)
        return made

    app = create_app(chosen, build=build)
    try:
        with TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False) as http:
            yield Service(http, app, app.state.services, worker, client)
    finally:
        worker.engine.close()
