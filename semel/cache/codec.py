"""Vectors as bytes: raw little-endian numbers, with a checksum over key and bytes.

A dense vector is its numbers. A sparse vector is the size of an index and that of a weight, one byte each, then the
indices, then the weights.
"""

from collections.abc import Sequence
from typing import Any
from zlib import crc32

import numpy as np

from semel.errors import InvalidVectorError
from semel.values.sparse import SPARSE_DIM, SparseVector, sparse_rows
from semel.values.vectors import AnyVectors, empty_rows, sound_rows

DTYPES: dict[str, "np.dtype[Any]"] = {"float32": np.dtype("<f4"), "float16": np.dtype("<f2")}
"""The dtypes of stored vectors. Both are little-endian, so a database may move to any machine."""


_INDICES: dict[int, "np.dtype[Any]"] = {2: np.dtype("<u2"), 4: np.dtype("<u4")}

_WEIGHTS = {dtype.itemsize: dtype for dtype in DTYPES.values()}


def checksum(key: bytes, data: bytes) -> int:
    """CRC-32 over key and data, which also detects data that belongs to another key."""
    return crc32(data, crc32(key))


def encode(vectors: AnyVectors, *, dim: int, dtype: str) -> list[bytes]:
    """Encode vectors for storage, one blob per row.

    Args:
        vectors: float32 (n, dim), or sparse.
        dtype: a name in `DTYPES`.

    Raises:
        InvalidVectorError: wrong shape, NaN, infinity, an all-zero row, or a value that `dtype` cannot hold.
    """
    check_vectors(vectors, dim=dim)
    if dim == SPARSE_DIM:
        return [_encode_sparse(row, dtype) for row in vectors]
    return [row.tobytes() for row in _stored(vectors, dtype)]


def _stored(numbers: AnyVectors, dtype: str) -> AnyVectors:
    """Numbers in the type in which they are stored. Raises InvalidVectorError if it cannot hold them."""
    with np.errstate(over="ignore"):
        stored = np.ascontiguousarray(numbers, dtype=DTYPES[dtype])
    if dtype != "float32" and not np.isfinite(stored).all():
        raise InvalidVectorError(f"a vector has a value beyond the range of {dtype}; set SEMEL_VECTOR_DTYPE=float32")
    return stored


def _encode_sparse(vector: SparseVector, dtype: str) -> bytes:
    indices, weights = vector.indices, _stored(vector.values, dtype)
    indices = indices.astype(_INDICES[2 if not len(indices) or indices[-1] < 1 << 16 else 4])
    return bytes([indices.itemsize, weights.itemsize]) + indices.tobytes() + weights.tobytes()


def check_vectors(vectors: AnyVectors, *, dim: int) -> None:
    """Check that vectors are float (n, dim), finite and without a zero row; or sparse, ascending and finite.

    Raises InvalidVectorError.
    """
    if dim == SPARSE_DIM:
        if not all(_has_order(row) for row in vectors):
            raise InvalidVectorError("a sparse vector has indices that do not ascend; it is not stored")
    elif vectors.ndim != 2 or vectors.shape[1] != dim:
        raise InvalidVectorError(f"the vectors have shape {vectors.shape}, expected (n, {dim}); they are not stored")
    bad = ~sound_rows(vectors)
    if bad.any():
        row = int(bad.argmax())
        what = "not finite" if dim == SPARSE_DIM or not np.isfinite(vectors[row]).all() else "all zero"
        raise InvalidVectorError(f"vector {row} of {len(vectors)} is {what}; it is not stored")


def _has_order(row: SparseVector) -> bool:
    return len(row.indices) == len(row.values) and bool((row.indices[1:] > row.indices[:-1]).all())


def decode_into(out: AnyVectors, rows: Sequence[int], blobs: Sequence[bytes]) -> None:
    """Write `blobs[i]` to `out[rows[i]]`; a blob itself shows its dtype.

    Args:
        out: float32 (n, dim), or sparse.
        blobs: as `encode` returns them; each must have a size for which `has_size` is true.
    """
    targets = np.asarray(rows, dtype=np.intp)
    if out.ndim == 1:
        out[targets] = sparse_rows(map(_decode_sparse, blobs))
        return
    dim = out.shape[1]
    sizes = np.fromiter((len(b) for b in blobs), dtype=np.intp, count=len(blobs))
    for dtype in DTYPES.values():
        chosen = np.flatnonzero(sizes == dim * dtype.itemsize)
        if len(chosen) == len(blobs):  # the usual case: one dtype, no selection
            out[targets] = np.frombuffer(b"".join(blobs), dtype).reshape(-1, dim)
            return
        if len(chosen):
            picked = b"".join(blobs[i] for i in chosen.tolist())
            out[targets[chosen]] = np.frombuffer(picked, dtype).reshape(-1, dim)


def _decode_sparse(data: bytes) -> SparseVector:
    """The vector in a blob that has a size for which `has_size` is true."""
    index, weight = _INDICES[data[0]], _WEIGHTS[data[1]]
    entries = _entries(data)
    indices = np.frombuffer(data, index, entries, offset=2).astype(np.uint32)
    values = np.frombuffer(data, weight, entries, offset=2 + entries * index.itemsize).astype(np.float32)
    return SparseVector(indices, values)


def _entries(data: bytes) -> int:
    return (len(data) - 2) // (data[0] + data[1])


def has_size(data: bytes, *, dim: int) -> bool:
    """Whether `data` has the length of a vector of `dim` numbers in one of `DTYPES`, or that of a sparse vector."""
    if dim == SPARSE_DIM:
        known = len(data) >= 2 and data[0] in _INDICES and data[1] in _WEIGHTS
        return known and (len(data) - 2) % (data[0] + data[1]) == 0
    return len(data) in (dim * 4, dim * 2)


def is_sound(data: bytes, *, dim: int) -> bool:
    """Whether size and values of a blob are those of a vector that `encode` would accept."""
    if not has_size(data, dim=dim):
        return False
    out = empty_rows(1, dim)
    decode_into(out, [0], [data])
    try:
        check_vectors(out, dim=dim)
    except InvalidVectorError:
        return False
    return True
