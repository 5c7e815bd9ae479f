"""How a device runs a model on this machine: its speed, its agreement with other devices, and sensible vectors."""

import statistics
import time
from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np

from semel.backends.base import Backend
from semel.backends.engine import Engine
from semel.values.device import Measured
from semel.values.vectors import Vectors, unit_rows

TEXTS = (
    "The cat sat on the mat.",
    "A feline rested on the rug.",
    "The stock market crashed today.",
    "json.loads deserialises a str, bytes or bytearray instance containing a JSON document to a Python object.",
    "naïve café, 漢字かな交じり文, Ελληνικά, עברית, 🙂",
    "x",
    "Return the number of seconds since the epoch as a floating point number. " * 4,
    "one two three four five six seven eight nine ten " * 40,
)
"""Texts for comparing devices: short, long, cut at the limit, and in several scripts."""

_CAT, _FELINE, _MARKET = 0, 1, 2
"""Positions in TEXTS of two texts with the same meaning, and of one with another."""

_MIN_RUN_S = 1.0
"""A run of at least this length shows a device's speed; a shorter one is repeated with twice the texts."""

_SINGLES = 7
"""Texts that are run one by one; their median is the latency."""


def measure(engine: Engine, backend: Backend, *, model: str) -> Measured:
    """Measure a loaded model's speed on sentences of about 15 tokens, in batches and one by one. Takes seconds.

    Args:
        engine: the engine that loaded `backend`.
        backend: the model on its device.
        model: its name, for the result.

    Raises:
        BackendError: the device is lost.
    """
    singles = [
        _seconds(engine, backend, [f"one sentence, number {i}, as a user would ask it"]) for i in range(_SINGLES)
    ]
    count, seconds = 8, 0.0
    while True:
        texts = [f"a sentence of some fifteen tokens, which is number {i} of {count} in this run" for i in range(count)]
        seconds = _seconds(engine, backend, texts)
        if seconds >= _MIN_RUN_S:
            break
        count *= 2
    return Measured(model, count / seconds, statistics.median(singles) * 1000)


def _seconds(engine: Engine, backend: Backend, texts: Sequence[str]) -> float:
    started = time.perf_counter()
    for _ in engine.submit(backend, texts):
        pass
    return time.perf_counter() - started


def embed_all(engine: Engine, backend: Backend, texts: Sequence[str] = TEXTS) -> Vectors:
    """Return the vectors of texts, float32 (texts, dim), in the engine's batches. Raises BackendError."""
    rows: dict[int, Vectors] = {}
    for part in engine.submit(backend, texts):
        rows.update(zip(part.indices, part.vectors, strict=True))
    return np.stack([rows[i] for i in range(len(texts))])


def agreement(vectors: Mapping[str, Vectors]) -> list[tuple[str, str, float, float]]:
    """Compare the vectors of each pair of devices: (device, device, lowest cosine, mean cosine).

    Args:
        vectors: device → its vectors of the same texts, float32 (n, dim).
    """
    pairs = []
    for one, other in combinations(vectors, 2):
        cosines = (unit_rows(vectors[one]) * unit_rows(vectors[other])).sum(axis=1)
        pairs.append((one, other, float(cosines.min()), float(cosines.mean())))
    return pairs


def makes_sense(vectors: Vectors) -> tuple[bool, str]:
    """Return whether texts with the same meaning have more similar vectors than others, and the two cosines.

    Args:
        vectors: those of TEXTS, float32 (n, dim).
    """
    cat, feline, market = unit_rows(vectors[[_CAT, _FELINE, _MARKET]])
    same, other = float(cat @ feline), float(cat @ market)
    return same > other, f"cat and feline {same:.2f}, cat and stock market {other:.2f}"
