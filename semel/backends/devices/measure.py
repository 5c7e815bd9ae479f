"""What a device does with a model on this machine: speed, agreement with the others, and whether it makes sense."""

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
"""Short, long, cut at the limit, and in several scripts: what the agreement of two devices is measured with."""

_NEAR, _ALSO_NEAR, _FAR = 0, 1, 2
"""In TEXTS: two that say the same, and one that does not."""

_ENOUGH_S = 1.0
"""A run this long says what a device does; below it doubles its texts."""

_SINGLES = 7


def measure(engine: Engine, backend: Backend, *, model: str) -> Measured:
    """Speed of a loaded model: sentences of about 15 tokens, in batches and one by one. Takes seconds."""
    singles = [
        _seconds(engine, backend, [f"one sentence, number {i}, as somebody would ask it"]) for i in range(_SINGLES)
    ]
    count, seconds = 8, 0.0
    while True:
        texts = [f"a sentence of some fifteen tokens, which is number {i} of {count} in this run" for i in range(count)]
        seconds = _seconds(engine, backend, texts)
        if seconds >= _ENOUGH_S:
            break
        count *= 2
    return Measured(model, count / seconds, statistics.median(singles) * 1000)


def _seconds(engine: Engine, backend: Backend, texts: Sequence[str]) -> float:
    started = time.perf_counter()
    for _ in engine.submit(backend, texts):
        pass
    return time.perf_counter() - started


def embed_all(engine: Engine, backend: Backend, texts: Sequence[str] = TEXTS) -> Vectors:
    """float32 (texts, dim), as the engine batches them."""
    rows: dict[int, Vectors] = {}
    for part in engine.submit(backend, texts):
        rows.update(zip(part.indices, part.vectors, strict=True))
    return np.stack([rows[i] for i in range(len(texts))])


def agreement(vectors: Mapping[str, Vectors]) -> list[tuple[str, str, float, float]]:
    """(device, device, lowest cosine, mean cosine) for each pair of devices; float32 (n, dim) for each device."""
    pairs = []
    for one, other in combinations(vectors, 2):
        cosines = (unit_rows(vectors[one]) * unit_rows(vectors[other])).sum(axis=1)
        pairs.append((one, other, float(cosines.min()), float(cosines.mean())))
    return pairs


def makes_sense(vectors: Vectors) -> tuple[bool, str]:
    """Whether the vectors of TEXTS put what means the same nearer together; with the figures."""
    near, also_near, far = unit_rows(vectors[[_NEAR, _ALSO_NEAR, _FAR]])
    close, distant = float(near @ also_near), float(near @ far)
    figures = f"cat and feline {close:.2f}, cat and stock market {distant:.2f}"
    return close > distant, figures
