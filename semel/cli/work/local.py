"""A pipeline in this process, with the cache that this machine's settings name."""

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
"""How much of a SQLite database is mapped into memory, which makes a run of hits faster."""


@dataclass(frozen=True)
class Local:
    """The cache, the models and the pipeline of this process."""

    store: VectorStore
    models: LoadedModels
    pipeline: Pipeline

    def space(self, model: str, prompt_name: str) -> Space:
        """Return the vector space of a model with one of its prompts; "" is no prompt.

        Raises:
            UnknownModelError: no such model is configured.
            ModelLoadError: its files are not on this machine, or cannot be used.
            BadInputError: the model has no such prompt.
        """
        spaces = self.models.spaces(model)
        if prompt_name not in spaces:
            names = ", ".join(name for name in spaces if name) or "none"
            raise BadInputError(f"model {model!r} has no prompt {prompt_name!r} (prompts: {names})")
        return spaces[prompt_name]

    def count_tokens(self, space: Space, texts: Sequence[str]) -> list[tuple[int, bool]]:
        """Return the number of tokens of each text, and whether the model truncates it."""
        with self.models.using(space.model) as model:
            tokens = model.backend.tokenize(texts, prompt=model.prompts[space.prompt_name])
        return [(len(read.ids), read.truncated) for read in tokens]


@contextmanager
def local(settings: Settings, *, device: str) -> Iterator[Local]:
    """Open the cache and start an engine; a model is loaded when it is first needed.

    Raises:
        UnavailableError: the database does not answer.
        SchemaError: the database belongs to another version of semel.
    """
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
