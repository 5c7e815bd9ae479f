"""Vectors as bytes: raw little-endian floats, with a checksum over key and bytes."""

from collections.abc import Sequence
from typing import Any
from zlib import crc32

import numpy as np

from semel.errors import InvalidVectorError
from semel.values.vectors import Vectors, sound_rows

DTYPES: dict[str, "np.dtype[Any]"] = {"float32": np.dtype("<f4"), "float16": np.dtype("<f2")}
"""The dtypes of stored vectors. Both are little-endian, so a database may move to any machine."""


def checksum(key: bytes, data: bytes) -> int:
    """CRC-32 over key and data, which also detects data that belongs to another key."""
    return crc32(data, crc32(key))


def encode(vectors: Vectors, *, dim: int, dtype: str) -> list[bytes]:
    """Encode vectors for storage, one blob per row.

    Args:
        vectors: float32 (n, dim).
        dtype: a name in `DTYPES`.

    Raises:
        InvalidVectorError: wrong shape, NaN, infinity, an all-zero row, or a value that `dtype` cannot hold.
    """
    check_vectors(vectors, dim=dim)
    with np.errstate(over="ignore"):
        stored = np.ascontiguousarray(vectors, dtype=DTYPES[dtype])
    if dtype != "float32" and not np.isfinite(stored).all():
        raise InvalidVectorError(f"a vector has a value beyond the range of {dtype}; set SEMEL_VECTOR_DTYPE=float32")
    return [row.tobytes() for row in stored]


def check_vectors(vectors: Vectors, *, dim: int) -> None:
    """Check that vectors are float (n, dim), finite and without a zero row. Raises InvalidVectorError."""
    if vectors.ndim != 2 or vectors.shape[1] != dim:
        raise InvalidVectorError(f"the vectors have shape {vectors.shape}, expected (n, {dim}); they are not stored")
    bad = ~sound_rows(vectors)
    if bad.any():
        row = int(bad.argmax())
        what = "all zero" if np.isfinite(vectors[row]).all() else "not finite"
        raise InvalidVectorError(f"vector {row} of {len(vectors)} is {what}; it is not stored")


def decode_into(out: Vectors, rows: Sequence[int], blobs: Sequence[bytes]) -> None:
    """Write `blobs[i]` to `out[rows[i]]`; the length of a blob determines its dtype.

    Args:
        out: float32 (n, dim).
        blobs: as `encode` returns them; each must have a size for which `has_size` is true.
    """
    dim = out.shape[1]
    targets = np.asarray(rows, dtype=np.intp)
    sizes = np.fromiter((len(b) for b in blobs), dtype=np.intp, count=len(blobs))
    for dtype in DTYPES.values():
        chosen = np.flatnonzero(sizes == dim * dtype.itemsize)
        if len(chosen) == len(blobs):  # the usual case: one dtype, no selection
            out[targets] = np.frombuffer(b"".join(blobs), dtype).reshape(-1, dim)
            return
        if len(chosen):
            picked = b"".join(blobs[i] for i in chosen.tolist())
            out[targets[chosen]] = np.frombuffer(picked, dtype).reshape(-1, dim)


def has_size(data: bytes, *, dim: int) -> bool:
    """Whether `data` has the length of a vector of `dim` numbers in one of `DTYPES`."""
    return len(data) in (dim * 4, dim * 2)
