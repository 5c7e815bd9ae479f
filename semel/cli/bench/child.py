"""One model on one device, measured in a process of its own, so that start and memory are those of a new process.

Its stdout is JSON, a line for each event: `{"ready": true}` after the first text, `{"done": 0.5}` as it goes on, and at
the end `{"figures": […]}`. Logs and errors go to stderr.
"""

import json
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import psutil

from semel.backends.devices.measure import TEXTS
from semel.cli.bench import limits
from semel.cli.bench.figures import Figure
from semel.cli.bench.rounds import durations_s, figures, in_rounds, new_texts, percentiles_ms
from semel.local import Local
from semel.tasks.worker.embed import LoadedModel
from semel.values.device import device_kind
from semel.values.model import Space

BATCHES = (1, 10, 32, 100)
"""Texts in one call."""

DOCUMENTS = (2, 5, 10, 20)
"""Documents of one query."""

_AT_ONCE = 20
"""Requests at once, for the memory that each one takes."""

_LEAST = 5
"""Single texts in a round, so that there are percentiles."""

_LONG = "a paragraph of many such sentences makes the model read as many tokens as it can " * 30


class Memory:
    """The resident memory of this process, which a thread looks at ten times per second."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self.peak_mb = self.mb
        self._stopping = threading.Event()
        threading.Thread(target=self._look, daemon=True).start()

    @property
    def mb(self) -> float:
        """Now."""
        return float(self._process.memory_info().rss) / 1e6

    def _look(self) -> None:
        while not self._stopping.wait(0.1):
            self.peak_mb = max(self.peak_mb, self.mb)

    def close(self) -> None:
        """Stop looking."""
        self._stopping.set()


@dataclass
class Measured:
    """One model on one device."""

    local: Local
    space: Space
    device: str

    def compute(self, texts: Sequence[str]) -> object:
        """What the model computes of texts, through the whole path: keys, cache, engine, cache."""
        name = self.space.model
        if self.space.kind == "sparse":
            return self.local.embed_sparse(texts, model=name)
        if self.space.kind == "classifier":
            return self.local.classify(texts, model=name)
        if self.space.kind == "cross-encoder":
            return self.local.rerank("a question that documents may answer", texts, model=name)
        return self.local.embed(texts, model=name)

    def one(self, seconds: float) -> dict[str, float]:
        """Milliseconds of a single text."""
        return percentiles_ms(durations_s(lambda: self.compute(new_texts(1)), seconds, least=_LEAST), (50, 95, 99), "")

    def batch(self, size: int, seconds: float) -> dict[str, float]:
        """Texts per second in calls of `size` texts."""
        spent = durations_s(lambda: self.compute(new_texts(size)), seconds)
        return {f"{size} texts": size * len(spent) / sum(spent)}

    def rank(self, documents: int, seconds: float) -> dict[str, float]:
        """Milliseconds of a query with new documents."""
        spent = durations_s(
            lambda: self.local.rerank("a question", new_texts(documents), model=self.space.model), seconds
        )
        return {f"{documents} documents": float(np.median(spent)) * 1000}

    @property
    def ranks(self) -> bool:
        """Whether the model can rank documents."""
        return self.space.kind in ("embed", "cross-encoder")


def main() -> None:
    """Measure as the command line says: device, model, seconds, rounds (0: only the start), a file for vectors."""
    device, model, seconds, rounds, vectors = sys.argv[1:]
    with Local(device=device) as local:
        memory = Memory()
        space = local.space(model, "")
        measured = Measured(local, space, device)
        measured.compute(new_texts(1))
        _say({"ready": True})
        if int(rounds) == 0:  # only the start is measured
            return
        found = _measure(measured, memory, seconds=float(seconds), rounds=int(rounds))
        if space.kind == "embed":
            np.save(Path(vectors), local.embed(list(TEXTS), model=model))
        with local.models.using(model) as loaded:
            found = _with_limits(found, measured, loaded)
        memory.close()
    _say({"figures": [asdict(figure) for figure in found]})


def _measure(measured: Measured, memory: Memory, *, seconds: float, rounds: int) -> list[Figure]:
    loaded_mb = memory.mb
    groups: list[tuple[str, str, list[Callable[[float], dict[str, float]]]]] = [
        ("one text", "ms", [measured.one]),
        ("batches", "texts/s", [partial(measured.batch, size) for size in BATCHES]),
    ]
    if measured.ranks:
        groups.append(("rerank", "ms", [partial(measured.rank, number) for number in DOCUMENTS]))
    total = sum(len(measurements) for _, _, measurements in groups)
    found: list[Figure] = []
    before = 0
    for group, unit, measurements in groups:
        share = seconds * len(measurements) / total
        done = partial(_show_done, before * rounds, total * rounds)
        values = in_rounds(measurements, seconds=share, rounds=rounds, done=done)
        found += _figures(measured, group, values, unit)
        before += len(measurements)
    return found + _figures(measured, "memory", _memory(measured, memory, loaded_mb), "MB")


def _memory(measured: Measured, memory: Memory, loaded_mb: float) -> dict[str, list[float]]:
    sustained_mb, peak_mb = memory.mb, memory.peak_mb
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        texts = [f"{text} {_LONG}" for text in new_texts(_AT_ONCE)]
        memory.peak_mb = memory.mb
        list(pool.map(lambda text: measured.compute([text]), texts))
        burst_mb = max(memory.peak_mb, memory.mb)
    found = {
        "loaded": [loaded_mb],
        "sustained, after all batches": [sustained_mb],
        "peak": [max(peak_mb, burst_mb)],
        f"each of {_AT_ONCE} requests at once": [max(0.0, burst_mb - sustained_mb) / _AT_ONCE],
    }
    if device_kind(measured.device) == "cuda":
        import torch

        found["peak on the device"] = [torch.cuda.max_memory_allocated() / 1e6]
    return found


def _figures(measured: Measured, group: str, values: dict[str, list[float]], unit: str) -> list[Figure]:
    model = measured.space.model
    return figures(group, values, device=measured.device, model=model, unit=unit, higher=unit == "texts/s")


def _with_limits(found: Sequence[Figure], measured: Measured, loaded: LoadedModel) -> list[Figure]:
    """The figures, next to what the device's matrix products and this machine's memory allow."""
    info = loaded.backend.get_model_info()
    limit_of: dict[tuple[str, str], tuple[float, str]] = {}
    weights = limits.product_weights(measured.local.models.weight_files(measured.space.model))
    if weights and info.backend.startswith("torch"):
        name = f"matrix products in {info.dtype}"
        flops = limits.product_flops(measured.device, info.dtype)
        tokens = float(np.mean([count for count, _ in measured.local.count_tokens(measured.space, new_texts(32))]))
        rate = flops / (2 * weights * tokens)
        limit_of |= {("batches", f"{size} texts"): (rate, name) for size in BATCHES}
    if info.weight_bytes and device_kind(measured.device) == "cpu":
        once_ms = info.weight_bytes / limits.copy_bytes_per_s() * 1000
        limit_of["one text", "p50"] = once_ms, "reading the weights once"
    return [
        replace(figure, limit=limit_of[key][0], limit_name=limit_of[key][1])
        if (key := (figure.group, figure.name)) in limit_of
        else figure
        for figure in found
    ]


def _show_done(before: int, total: int, ended: int) -> None:
    _say({"done": (before + ended) / total})


def _say(event: dict[str, object]) -> None:
    sys.stdout.write(f"{json.dumps(event)}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
