"""How fast are cold texts next to what else embeds on a CPU: sentence-transformers, OpenVINO, fastembed?

The peers run in processes of their own, and take turns with semel on the same texts. semel's time covers the whole path
of `semel embed --local` with an empty cache, which the peers do not have. fastembed cuts texts at the 128 tokens that
the model's tokenizer.json names, the others at 256, which shows in its cosines. `make bench` installs the peers.
"""

import argparse
import json
import statistics
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.bench_cold import Semel
from benchmarks.corpora import paragraphs, sentences

PEERS = ("sentence_transformers", "openvino", "fastembed")


class Peer:
    """A peer in its process.

    Args:
        python: the interpreter that has the peers.
    """

    def __init__(self, python: Path, name: str) -> None:
        script = Path(__file__).with_name("peer_embedders.py")
        self._process = subprocess.Popen(
            [python, script, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        if self._answer() != "ready":
            raise SystemExit(f"{name} does not start; see the errors of: {python} {script} {name}")

    def embed(self, texts: list[str]) -> tuple[float, np.ndarray]:
        """Seconds and vectors."""
        assert self._process.stdin is not None  # PIPE above
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "texts.json"
            path.write_text(json.dumps(texts))
            self._process.stdin.write(f"{path}\n")
            self._process.stdin.flush()
            seconds = float(self._answer())
            return seconds, np.load(path.with_suffix(".npy"))

    def _answer(self) -> str:
        assert self._process.stdout is not None  # PIPE above
        return self._process.stdout.readline().strip()

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None  # PIPE above
        self._process.stdin.close()
        self._process.wait(30)


def main() -> None:
    """Compare sentences, then paragraphs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", type=Path, default=Path(".venv-peers/bin/python"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sentences", type=int, default=2000)
    parser.add_argument("--paragraphs", type=int, default=300)
    options = parser.parse_args()
    if not options.python.exists():
        raise SystemExit(f"{options.python} is not there: 'make bench' installs the peers")
    peers = {name: Peer(options.python.absolute(), name) for name in PEERS}
    with tempfile.TemporaryDirectory() as home:
        semel = Semel(Path(home))
        print("semel:", semel.models.get("minilm").backend.get_model_info().why)
        compare("sentences", sentences(options.sentences), semel, peers, options.rounds)
        compare("paragraphs", paragraphs(options.paragraphs), semel, peers, options.rounds)
        semel.engine.close()
    for peer in peers.values():
        peer.close()


def compare(name: str, texts: list[str], semel: Semel, peers: dict[str, Peer], rounds: int) -> None:
    """Print the rate of each, the ratio of semel's to it in each round, and the lowest cosine between their vectors."""
    ours: list[float] = []
    theirs: dict[str, list[float]] = {peer: [] for peer in peers}
    cosines = {}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            seconds, vectors = semel.embed(texts, Path(folder))
        ours.append(seconds)
        for peer, process in peers.items():
            seconds, reference = process.embed(texts)
            theirs[peer].append(seconds)
            cosines[peer] = float((vectors * reference).sum(1).min())
    print(f"{name}: semel {len(texts) / statistics.median(ours):,.0f}/s with its cache ({_rounds(texts, ours)})")
    for peer, spent in theirs.items():
        ratios = [their_s / our_s for their_s, our_s in zip(spent, ours, strict=True)]
        print(
            f"{name}: {peer} {len(texts) / statistics.median(spent):,.0f}/s ({_rounds(texts, spent)}); semel is "
            f"{statistics.median(ratios):.2f} times as fast ({min(ratios):.2f} to {max(ratios):.2f}), lowest cosine "
            f"{cosines[peer]:.5f}"
        )


def _rounds(texts: list[str], spent: list[float]) -> str:
    return "rounds: " + ", ".join(f"{len(texts) / seconds:,.0f}" for seconds in spent)


if __name__ == "__main__":
    main()
