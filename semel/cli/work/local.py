"""A pipeline in this process, on the cache of this machine's settings."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from semel.backends.engine import Engine
from semel.cache.claims import LocalClaims
from semel.cache.store import VectorStore
from semel.db import Database
from semel.errors import BadInputError
from semel.pipeline import Pipeline
from semel.settings import Settings
from semel.tasks.worker.embed import Embedder
from semel.tasks.worker.local import LocalSender
from semel.tasks.worker.models import LoadedModels
from semel.values.model import Space

MMAP_BYTES = 4 << 30


@dataclass(frozen=True)
class Local:
    """Cache, models and pipeline of this process."""

    store: VectorStore
    models: LoadedModels
    pipeline: Pipeline

    def space(self, model: str, prompt_name: str) -> Space:
        """Raises UnknownModelError, ModelLoadError, BadInputError for a prompt that the model lacks."""
        spaces = self.models.spaces(model)
        if prompt_name not in spaces:
            names = ", ".join(name for name in spaces if name) or "none"
            raise BadInputError(f"model {model!r} has no prompt {prompt_name!r} (prompts: {names})")
        return spaces[prompt_name]

    def count_tokens(self, space: Space, texts: Sequence[str]) -> list[tuple[int, bool]]:
        """The tokens of each text, and whether the model cuts it."""
        with self.models.using(space.model) as model:
            tokens = model.backend.tokenize(texts, prompt=model.prompts[space.prompt_name])
        return [(len(read.ids), read.truncated) for read in tokens]


@contextmanager
def local(settings: Settings, *, device: str) -> Iterator[Local]:
    """Open it; models are loaded when first needed."""
    db = Database(settings.database, max_bytes=settings.database_max_bytes, mmap_bytes=MMAP_BYTES)
    db.upgrade()
    store = VectorStore(db, dtype=settings.vector_dtype)
    engine = Engine(max_batch_tokens=settings.max_batch_tokens)
    try:
        models = LoadedModels(settings, engine, device=device)
        yield Local(store, models, Pipeline(store, LocalSender(models, Embedder(engine, store, LocalClaims()))))
    finally:
        engine.close()
        db.close()
