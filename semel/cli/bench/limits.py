"""What this machine allows at best: matrix products, memory, and SQLite alone."""

import os
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path

import numpy as np

from semel.backends.models.layout import tensors_of

_RUN_S = 0.4
"""For each limit: long enough that clocks and caches have settled."""

_ROWS, _SLICE, _ROW_BYTES = 20_000, 500, 384 * 4
"""Rows of a vector of 384 numbers, as the cache stores them, and how many one statement takes."""


def copy_bytes_per_s() -> float:
    """Bytes per second that one core reads from memory, as it copies (and writes as many)."""
    source = np.ones(64 << 20, np.uint8)
    target = np.empty_like(source)
    return source.nbytes / _best_s(lambda: np.copyto(target, source))


def sqlite_rows_per_s() -> tuple[float, float]:
    """Rows per second that `sqlite3` alone stores and reads: (stored, read)."""
    rows = [(os.urandom(32), i % 100, os.urandom(_ROW_BYTES)) for i in range(_ROWS)]
    with tempfile.TemporaryDirectory() as folder, closing(sqlite3.connect(Path(folder) / "limit.db")) as db:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=NORMAL")
        db.execute("CREATE TABLE v (key BLOB PRIMARY KEY, tokens INT, data BLOB) WITHOUT ROWID")
        started = time.perf_counter()
        for at in range(0, _ROWS, _SLICE):
            with db:
                db.executemany("INSERT INTO v VALUES (?, ?, ?)", rows[at : at + _SLICE])
        stored_s = time.perf_counter() - started
        started = time.perf_counter()
        marks = ",".join("?" * _SLICE)
        for at in range(0, _ROWS, _SLICE):
            keys = [key for key, *_ in rows[at : at + _SLICE]]
            db.execute(f"SELECT key, tokens, data FROM v WHERE key IN ({marks})", keys).fetchall()
        return _ROWS / stored_s, _ROWS / (time.perf_counter() - started)


def product_flops(device: str, dtype: str) -> float:
    """Operations per second of a large matrix product with torch.

    Args:
        device: torch's name of it.
        dtype: `float32`, `bfloat16` or `float16`.
    """
    import torch

    size = 8192 if device.startswith("cuda") else 1024
    left, right = (torch.randn(size, size, device=device).to(getattr(torch, dtype)) for _ in range(2))

    def product() -> None:
        (left @ right)[0, 0].item()  # reading a number waits for the device

    with torch.inference_mode():
        return 2 * size**3 / _best_s(product)


def product_weights(files: Iterable[Path]) -> int | None:
    """How many weights a text's token is multiplied with: those of matrices that are no tables of embeddings.

    Returns None where the headers of the files do not show it: other formats than safetensors, and mixtures of experts.
    """
    count = 0
    for file in files:
        if file.suffix != ".safetensors":
            return None
        for name, tensor in tensors_of(file).items():
            if "expert" in name:
                return None
            if len(tensor.get("shape", ())) == 2 and "embed" not in name and not name.startswith("wte"):
                count += tensor["shape"][0] * tensor["shape"][1]
    return count or None


def _best_s(work: Callable[[], object]) -> float:
    """Seconds of the fastest of many runs: a limit is what the machine can do undisturbed."""
    work()
    best, end = float("inf"), time.perf_counter() + _RUN_S
    while time.perf_counter() < end:
        started = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - started)
    return best
