"""Sparse vectors: the weights of a few tokens of a vocabulary, such as SPLADE's and the lexical weights of BGE-M3."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

SPARSE_DIM = 0
"""The `dim` of a space of sparse vectors, which differ in length."""


@dataclass(frozen=True, slots=True, eq=False)
class SparseVector:
    """The entries of a vector that are not zero. A text may have none.

    Attributes:
        indices: token ids in ascending order, uint32 (entries,).
        values: their weights, float32 (entries,).
    """

    indices: npt.NDArray[np.uint32]
    values: npt.NDArray[np.float32]

    @property
    def is_finite(self) -> bool:
        """Whether no weight is NaN or infinite."""
        return bool(np.isfinite(self.values).all())

    def as_dict(self) -> dict[str, list[Any]]:
        """`indices` and `values` as lists, as Qdrant and Pinecone take them."""
        return {"indices": self.indices.tolist(), "values": self.values.tolist()}


SparseVectors: TypeAlias = npt.NDArray[Any]
"""Object array (n,) of `SparseVector`; None in the row of a text that failed."""


def sparse_rows(rows: Iterable[SparseVector | None]) -> SparseVectors:
    """An array of these rows."""
    listed = list(rows)
    array = np.empty(len(listed), object)
    array[:] = listed
    return array
