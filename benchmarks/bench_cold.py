"""How much faster is a cold `semel embed --local` than SentenceTransformer.encode at its defaults?

Both run in this process, in turn, on the same texts. semel's time covers the whole path: read a file, compute keys,
look them up, run the device, store the vectors and write them. Loading the model is not counted on either side.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.corpora import paragraphs, sentences
from semel.backends.engine import Engine
from semel.cache.claims import LocalClaims
from semel.cache.store import VectorStore
from semel.cli.work.embedding import EmbedOptions, embed_blocks, read_source, write_blocks
from semel.db import Database
from semel.local import MMAP_BYTES
from semel.pipeline import Pipeline
from semel.settings import load_settings
from semel.tasks.worker.embed import Embedder
from semel.tasks.worker.local import LocalSender
from semel.tasks.worker.models import LoadedModels
from semel.values.result_columns import ResultColumns


class Semel:
    """The parts of `semel embed --local`, with the model kept loaded between rounds."""

    def __init__(self, home: Path, device: str = "cpu") -> None:
        self.settings = load_settings(home=home)
        self.device = device
        self.engine = Engine()
        self.models = LoadedModels(self.settings, self.engine, device=device)
        self.models.get("minilm")

    def embed(self, texts: list[str], folder: Path) -> tuple[float, np.ndarray]:
        """Seconds and vectors of a run on an empty cache."""
        source = folder / "in.txt"
        source.write_text("\n".join(texts) + "\n")
        options = EmbedOptions(
            source,
            folder / "out.npy",
            model="minilm",
            device=self.device,
            text_field="text",
            prompt_name="",
            input_type="none",
            strict=True,
            truncate=True,
        )
        started = time.perf_counter()
        db = Database(f"sqlite:///{folder / 'semel.db'}", mmap_bytes=MMAP_BYTES)
        db.upgrade()
        store = VectorStore(db)
        space = self.models.spaces("minilm")[""]
        pipeline = Pipeline(store, LocalSender(self.models, Embedder(self.engine, store, LocalClaims())))
        blocks = embed_blocks(pipeline, space, options, read_source(self.settings, options))
        write_blocks(options, blocks, ResultColumns(space.kind, space.dim), label="semel")
        db.close()
        return time.perf_counter() - started, np.load(folder / "out.npy")


def main() -> None:
    """Compare sentences, then paragraphs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sentences", type=int, default=3000)
    parser.add_argument("--paragraphs", type=int, default=600)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        semel = Semel(Path(home))
        print("semel:", semel.models.get("minilm").backend.get_model_info().why)
        from sentence_transformers import SentenceTransformer

        peer = SentenceTransformer(str(semel.models._source("minilm").path), device="cpu")
        for name, texts in (
            ("sentences", sentences(options.sentences)),
            ("paragraphs", paragraphs(options.paragraphs)),
        ):
            compare(name, texts, semel, peer, options.rounds)
        semel.engine.close()


def compare(name: str, texts: list[str], semel: Semel, peer: object, rounds: int) -> None:
    """Print the rates of both for some texts, and the lowest cosine between their vectors."""
    ratios, ours, theirs = [], [], []
    tokens = np.mean([len(t.ids) for t in semel.models.get("minilm").backend.tokenize(texts)])
    for _ in range(rounds):
        started = time.perf_counter()
        reference = peer.encode(texts)  # type: ignore[attr-defined]
        theirs.append(time.perf_counter() - started)
        with tempfile.TemporaryDirectory() as folder:
            seconds, vectors = semel.embed(texts, Path(folder))
        ours.append(seconds)
        ratios.append(theirs[-1] / seconds)
    cosine = (vectors * reference).sum(1).min()
    print(
        f"{name}: {len(texts)} texts of {tokens:.0f} tokens; sentence-transformers {len(texts) / min(theirs):.0f}/s, "
        f"semel {len(texts) / min(ours):.0f}/s, ratio {statistics.median(ratios):.2f} "
        f"(rounds: {', '.join(f'{r:.2f}' for r in ratios)}), lowest cosine {cosine:.5f}"
    )


if __name__ == "__main__":
    main()
