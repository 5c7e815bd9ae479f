"""A device, models and claims in this process, for tests of what a worker does with them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from semel.backends.engine import Engine
from semel.cache.claims import Claims, LocalClaims
from semel.cache.keys import input_keys
from semel.cache.store import VectorStore
from semel.settings import Settings
from semel.tasks.worker.chunk import ChunkRunner
from semel.tasks.worker.embed import Embedder, LoadedModel
from semel.tasks.worker.models import LoadedModels
from semel.values.model import ModelEntry, Space
from semel.values.text import Input
from tests.support.jobs import Jobs


class KilledError(BaseException):
    """The process ended here. No code catches it, as nothing runs after SIGKILL."""


class Device:
    """An engine with fake models on it.

    Attributes:
        on_batch: called as each batch ends, on the device thread.
        stages: what the engine and the embedder observed.
    """

    def __init__(
        self, home: Path, store: VectorStore, entries: dict[str, ModelEntry], claims: Claims, max_batch_tokens: int
    ) -> None:
        self.on_batch: Callable[[], None] = lambda: None
        self.stages: list[str] = []
        self.engine = Engine(max_batch_tokens=max_batch_tokens, on_batch=lambda _texts, _tokens: self.on_batch())
        self.models = LoadedModels(Settings(home=home, models=entries), self.engine, device="auto")
        self.embedder = Embedder(self.engine, store, claims, observe=self._observe)

    def _observe(self, stage: str, _seconds: float) -> None:
        self.stages.append(stage)

    @property
    def model(self) -> LoadedModel:
        """The model `m`, loaded."""
        return self.models.get("m")

    def space(self, prompt_name: str = "", *, model: str = "m") -> Space:
        """A space of a model, from its entry alone."""
        return self.models.spaces(model)[prompt_name]

    def missing(self, *texts: str, prompt_name: str = "") -> dict[bytes, Input]:
        """A mapping from the key of each text to the text."""
        return dict(zip(input_keys(self.space(prompt_name).fingerprint, texts), texts, strict=True))


@contextmanager
def device_on(
    store: VectorStore,
    home: Path,
    source: str = "fake:?dim=8&max_tokens=20&fail_on=poison",
    *,
    claims: Claims | None = None,
    more: dict[str, ModelEntry] | None = None,
    max_batch_tokens: int = 16,
) -> Iterator[Device]:
    """A device that computes a few short texts at a time, with a model `m` that fails on `poison`."""
    entries = {"m": ModelEntry(source, prompts={"query": "find "}), **(more or {})}
    device = Device(home, store, entries, claims or LocalClaims(), max_batch_tokens)
    try:
        yield device
    finally:
        device.engine.close()


def chunk_runner(jobs: Jobs, store: VectorStore, device: Device, *, owner: str, **options: Any) -> ChunkRunner:
    """The runner of a worker on this device; the options are those of `ChunkRunner`."""
    return ChunkRunner(
        jobs,
        jobs,
        store,
        device.embedder,
        device.models,
        owner=owner,
        refuse=lambda *_: False,
        record=lambda _: None,
        **options,
    )
