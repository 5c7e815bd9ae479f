"""How fast is a run of hits? 200,000 texts × 384 on SQLite, against LangChain's CacheBackedEmbeddings on files.

semel's time covers hashing, deduplication, look-up and assembly. LangChain gets a tenth of the texts, because its rate
does not depend on their number and filling its store takes minutes.

With --postgres URL, an empty database there is filled and read in turn with SQLite.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from langchain_classic.embeddings import CacheBackedEmbeddings
from langchain_classic.storage import LocalFileStore
from langchain_core.embeddings import Embeddings
from typing_extensions import override

from semel.cache.keys import input_keys
from semel.cache.store import VectorStore
from semel.db import Database
from semel.local import MMAP_BYTES
from semel.pipeline import Pipeline
from semel.values.model import FingerprintSpec, Producer, Space
from semel.values.vectors import Computed

DIM = 384
SLICE = 8192
SPEC = FingerprintSpec(
    kind="embed", weights="", tokenizer="", architecture="", pooling="mean", normalize=True, prompt="", max_tokens=256,
    truncate_side="right", precision="full",
)  # fmt: skip
SPACE = Space(SPEC.fingerprint, "m", "", DIM, SPEC.max_tokens, SPEC.precision, SPEC.canonical_json().decode())


class Never:
    """A sender that must not be called, because every text is a hit."""

    def compute(self, *_: object, **__: object) -> Computed:
        """End the benchmark."""
        raise SystemExit("a text that should be a hit was missing")


class Random(Embeddings):
    """Random vectors, to fill LangChain's store."""

    @override
    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return np.random.default_rng(0).standard_normal((len(texts), DIM)).astype(np.float32).tolist()

    @override
    def embed_query(self, text: str) -> list[float]:
        return self.embed_documents([text])[0]


def main() -> None:
    """Print the rates of both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--texts", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--postgres", default="", help="compare with an empty database at this URL, and not with LangChain"
    )
    options = parser.parse_args()
    texts = [f"text number {i}: what a sentence of a usual length looks like in a cache" for i in range(options.texts)]
    if options.postgres:
        compare_databases(texts, options.postgres, options.rounds)
        return
    with tempfile.TemporaryDirectory() as folder:
        db = Database(f"sqlite:///{folder}/semel.db", mmap_bytes=MMAP_BYTES)  # as `semel embed` opens it
        db.upgrade()
        store, space = VectorStore(db), SPACE
        fill(store, space, texts)
        few = texts[: options.texts // 10]
        peer = CacheBackedEmbeddings.from_bytes_store(
            Random(), LocalFileStore(Path(folder) / "langchain"), namespace="m", key_encoder="sha256"
        )
        peer.embed_documents(few)
        pipeline, ours, theirs = Pipeline(store, Never()), [], []
        for _ in range(options.rounds):
            ours.append(warm_rate(pipeline, texts))
            started = time.perf_counter()
            peer.embed_documents(few)
            theirs.append(len(few) / (time.perf_counter() - started))
        ratios = [o / t for o, t in zip(ours, theirs, strict=True)]
        print(
            f"{len(texts)} hits: semel {statistics.median(ours):,.0f}/s, LangChain {statistics.median(theirs):,.0f}/s, "
            f"ratio {statistics.median(ratios):.1f} (rounds: {', '.join(f'{o:,.0f}' for o in ours)})"
        )
        db.close()


def warm_rate(pipeline: Pipeline, texts: list[str]) -> float:
    """Hits per second."""
    started = time.perf_counter()
    for at in range(0, len(texts), SLICE):
        pipeline.embed(SPACE, texts[at : at + SLICE])
    return len(texts) / (time.perf_counter() - started)


def compare_databases(texts: list[str], url: str, rounds: int) -> None:
    """Print the rates of storing and of reading, on SQLite and on PostgreSQL."""
    with tempfile.TemporaryDirectory() as folder:
        dbs = [Database(f"sqlite:///{folder}/semel.db", mmap_bytes=MMAP_BYTES), Database(url)]
        warm: list[list[float]] = [[], []]
        puts = []
        for db in dbs:
            db.upgrade()
            started = time.perf_counter()
            fill(VectorStore(db), SPACE, texts)
            puts.append(len(texts) / (time.perf_counter() - started))
        for _ in range(rounds):
            for db, rates in zip(dbs, warm, strict=True):
                rates.append(warm_rate(Pipeline(VectorStore(db), Never()), texts))
        for what, (lite, postgres) in (("stored", puts), ("read", [statistics.median(rates) for rates in warm])):
            print(f"{what}: SQLite {lite:,.0f}/s, PostgreSQL {postgres:,.0f}/s, ratio {postgres / lite:.2f}")
        for db in dbs:
            db.close()


def fill(store: VectorStore, space: Space, texts: list[str]) -> None:
    """Store random vectors for the texts."""
    random = np.random.default_rng(0)
    for at in range(0, len(texts), 4096):
        part = texts[at : at + 4096]
        vectors = random.standard_normal((len(part), DIM)).astype(np.float32)
        n = len(part)
        keys = input_keys(space.fingerprint, part)
        producer = Producer("cpu", "bench", "float32")
        store.put_many(space, keys, vectors, tokens=[12] * n, truncated=[False] * n, producer=producer)


if __name__ == "__main__":
    main()
