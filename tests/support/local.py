"""A semel in this process with a real store, a real engine and a fake model."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from semel.backends.engine import Engine
from semel.cache.claims import LocalClaims
from semel.cache.store import VectorStore
from semel.db import Database
from semel.pipeline import Pipeline
from semel.settings import Settings
from semel.tasks.worker.embed import Embedder
from semel.tasks.worker.local import LocalSender
from semel.tasks.worker.models import LoadedModels
from semel.values.model import ModelEntry, Space
from semel.values.vectors import Embedded
from tests.support.databases import migrated


class LocalSemel:
    """A pipeline on a database file: `embed("text", …)`."""

    def __init__(self, db: Database, engine: Engine, home: Path, entries: Mapping[str, ModelEntry]) -> None:
        self.db = db
        self.store = VectorStore(db)
        self.engine = engine
        self.models = LoadedModels(Settings(home=home, models=dict(entries)), engine, device="auto")
        self.sender = LocalSender(self.models, Embedder(engine, self.store, LocalClaims()))
        self.pipeline = Pipeline(self.store, self.sender)

    def space(self, model: str = "fake", prompt_name: str = "") -> Space:
        """The vector space of a model with one of its prompts."""
        return self.models.spaces(model)[prompt_name]

    def embed(self, *texts: str, model: str = "fake", prompt_name: str = "", truncate: bool = True) -> Embedded:
        """Embed texts through the pipeline."""
        return self.pipeline.embed(self.space(model, prompt_name), list(texts), truncate=truncate)


@contextmanager
def local_semel(
    folder: Path, source: str = "fake:?dim=8", *, more: Mapping[str, ModelEntry] | None = None
) -> Iterator[LocalSemel]:
    """Open one on the database in `folder`. Open it a second time to test what the database keeps."""
    db = Database(f"sqlite:///{migrated(folder / 'semel.db')}")
    db.upgrade()
    engine = Engine()
    try:
        yield LocalSemel(db, engine, folder, {"fake": ModelEntry(source), **(more or {})})
    finally:
        engine.close()
        db.close()
