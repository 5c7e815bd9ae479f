"""Vectors as bytes: raw little-endian floats, with a checksum over key and bytes."""

from collections.abc import Sequence
from typing import Any
from zlib import crc32

import numpy as np

from semel.errors import InvalidVectorError
from semel.values.vectors import Vectors, sound_rows

DTYPES: dict[str, "np.dtype[Any]"] = {"float32": np.dtype("<f4"), "float16": np.dtype("<f2")}


def checksum(key: bytes, data: bytes) -> int:
    """CRC-32 over both, so that a row whose bytes belong to another key is found too."""
    return crc32(data, crc32(key))


def encode(vectors: Vectors, *, dim: int, dtype: str) -> list[bytes]:
    """One blob a row.

    Raises:
        InvalidVectorError: wrong shape, NaN, infinity, an all-zero row, or a value that `dtype` cannot hold.
    """
    check_vectors(vectors, dim=dim)
    with np.errstate(over="ignore"):
        stored = np.ascontiguousarray(vectors, dtype=DTYPES[dtype])
    if dtype != "float32" and not np.isfinite(stored).all():
        raise InvalidVectorError(f"a vector does not fit into {dtype}; set SEMEL_VECTOR_DTYPE=float32")
    return [row.tobytes() for row in stored]


def check_vectors(vectors: Vectors, *, dim: int) -> None:
    """Raises InvalidVectorError unless float (n, dim), finite, no zero row."""
    if vectors.ndim != 2 or vectors.shape[1] != dim:
        raise InvalidVectorError(f"vectors of shape {vectors.shape} where (n, {dim}) belongs")
    bad = ~sound_rows(vectors)
    if bad.any():
        row = int(bad.argmax())
        what = "all zero" if np.isfinite(vectors[row]).all() else "not finite"
        raise InvalidVectorError(f"vector {row} of {len(vectors)} is {what}; it is not stored")


def decode_into(out: Vectors, rows: Sequence[int], blobs: Sequence[bytes]) -> None:
    """Write `blobs[i]` to `out[rows[i]]`; their length tells float32 from float16."""
    dim = out.shape[1]
    where = np.asarray(rows, dtype=np.intp)
    sizes = np.fromiter((len(b) for b in blobs), dtype=np.intp, count=len(blobs))
    for dtype in DTYPES.values():
        chosen = np.flatnonzero(sizes == dim * dtype.itemsize)
        if len(chosen) == len(blobs):  # the usual case: one dtype, no selection
            out[where] = np.frombuffer(b"".join(blobs), dtype).reshape(-1, dim)
            return
        if len(chosen):
            picked = b"".join(blobs[i] for i in chosen.tolist())
            out[where[chosen]] = np.frombuffer(picked, dtype).reshape(-1, dim)


def has_size(data: bytes, *, dim: int) -> bool:
    """Whether these bytes can be a vector of `dim` numbers in one of the known dtypes."""
    return len(data) in (dim * 4, dim * 2)
