"""The number types in which vectors are returned; each is made from the same cached float vectors."""

import base64
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from semel.values.vectors import Vectors, unit_rows

NumberType: TypeAlias = Literal["float", "int8", "uint8", "binary", "ubinary"]
"""The names that Cohere, Voyage and Jina use."""


def quantized(vectors: Vectors, kind: NumberType) -> npt.NDArray[Any]:
    """Convert vectors to a smaller number type, packed as sentence-transformers packs them.

    int8: the vector scaled to length 1, times 127, rounded; uint8: that plus 128. ubinary: one bit per number, set if
    the number is positive, eight bits per byte; binary: that minus 128. Each vector is quantised alone, so that it does
    not depend on the others of the request. `float` returns the vectors unchanged.

    Args:
        vectors: float32 (n, dim).

    Returns:
        (n, dim), or (n, dim / 8) for the binary types, in the named type; binary is int8, and ubinary uint8.
    """
    if kind == "float":
        return vectors
    if kind in ("binary", "ubinary"):
        bits = np.packbits(vectors > 0, axis=1)
        return bits if kind == "ubinary" else (bits.astype(np.int16) - 128).astype(np.int8)
    levels = np.rint(unit_rows(vectors) * 127).astype(np.int16)
    return levels.astype(np.int8) if kind == "int8" else (levels + 128).astype(np.uint8)


def as_base64(rows: npt.NDArray[Any]) -> list[str]:
    """Each row's numbers as base64, little-endian."""
    little = rows.astype(rows.dtype.newbyteorder("<"))
    return [base64.b64encode(row.tobytes()).decode() for row in little]
