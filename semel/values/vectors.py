"""Arrays of vectors, and the answers that contain them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from semel.errors import TextTooLongError
from semel.values.sparse import SPARSE_DIM, sparse_rows
from semel.values.text import ItemError, Outcome

Vectors: TypeAlias = npt.NDArray[np.float32]
"""float32 (n, dim), one row for each text, in the order of the texts."""

AnyVectors: TypeAlias = npt.NDArray[Any]
"""What a model computes, one row for each text: `Vectors`, or the `SparseVectors` of a sparse model."""


@dataclass(frozen=True)
class Found:
    """The rows of the cache for a list of keys, in the order of the keys.

    Attributes:
        present: bool (n,). The rows of `vectors`, `tokens` and `truncated` are meaningful only where it is true.
        tokens: int32 (n,), the tokens that the model read, special ones included.
        truncated: bool (n,), whether the text was longer than the model's limit.
        vectors: `AnyVectors`, or None for a look-up without vectors.
    """

    present: npt.NDArray[np.bool_]
    tokens: npt.NDArray[np.int32]
    truncated: npt.NDArray[np.bool_]
    vectors: AnyVectors | None = None

    def part(self, rows: slice) -> "Found":
        """Some of these rows."""
        vectors = None if self.vectors is None else self.vectors[rows]
        return Found(self.present[rows], self.tokens[rows], self.truncated[rows], vectors)

    @property
    def all_present(self) -> bool:
        """Whether the cache had every key."""
        return bool(self.present.all())

    def with_rows(self, keys: Sequence[bytes], rows: Sequence[int], computed: "Computed") -> "Found":
        """These rows, and those that were computed since.

        Args:
            keys: one for each row.
            rows: which of them were computed; `computed` has their vectors.
        """
        assert self.vectors is not None  # vectors were looked up
        full = Found(self.present.copy(), self.tokens.copy(), self.truncated.copy(), self.vectors.copy())
        assert full.vectors is not None
        full.present[rows] = True
        full.tokens[rows] = [computed.tokens[keys[row]] for row in rows]
        full.truncated[rows] = [computed.truncated[keys[row]] for row in rows]
        full.vectors[rows] = np.stack([computed.vectors[keys[row]] for row in rows])
        return full


@dataclass
class Computed:
    """The outcomes of missing keys, filled in as the batches end.

    Attributes:
        outcomes: key → its outcome.
        errors: key → why it failed.
        tokens: key → the tokens that the model read.
        truncated: key → whether the text was cut.
        inference_s: the worker's share of the time that the caller waited; None if it was not measured.
        vectors: key → its vector, as it was stored; only of keys that this process computed, where they are wanted.
    """

    outcomes: dict[bytes, Outcome] = field(default_factory=dict)
    errors: dict[bytes, ItemError] = field(default_factory=dict)
    tokens: dict[bytes, int] = field(default_factory=dict)
    truncated: dict[bytes, bool] = field(default_factory=dict)
    inference_s: float | None = None
    vectors: dict[bytes, Vectors] = field(default_factory=dict)

    def add(self, key: bytes, outcome: Outcome, *, tokens: int, truncated: bool) -> None:
        """Record a key whose vector is in the cache."""
        self.outcomes[key] = outcome
        self.tokens[key] = tokens
        self.truncated[key] = truncated

    def fail(self, key: bytes, error: ItemError) -> None:
        """Record a key that has no vector."""
        self.outcomes[key] = Outcome.FAILED
        self.errors[key] = error

    def merge(self, other: "Computed") -> None:
        """Add the outcomes of another computation; `inference_s` becomes None if that one was not measured."""
        self.outcomes |= other.outcomes
        self.errors |= other.errors
        self.tokens |= other.tokens
        self.truncated |= other.truncated
        self.vectors |= other.vectors
        self.inference_s = None if other.inference_s is None else (self.inference_s or 0.0) + other.inference_s


@dataclass(frozen=True)
class Embedded:
    """The answer for a list of texts, row i for text i.

    Attributes:
        vectors: `AnyVectors`; the row of a failed text is NaN or None, and must not be read.
        outcomes: one for each text.
        errors: index of a failed text → why it failed.
        tokens: int32 (n,).
        truncated: bool (n,).
        waited_s: seconds spent on the missing texts: in the queue, in the worker, and on the way there and back.
        inference_s: the worker's share of `waited_s`; None if it was not measured.
    """

    vectors: AnyVectors
    outcomes: Sequence[Outcome]
    errors: dict[int, ItemError]
    tokens: npt.NDArray[np.int32]
    truncated: npt.NDArray[np.bool_]
    waited_s: float = 0.0
    inference_s: float | None = 0.0

    def count(self, outcome: Outcome) -> int:
        """The number of texts with this outcome."""
        return sum(1 for o in self.outcomes if o is outcome)


def empty_rows(n: int, dim: int) -> AnyVectors:
    """Rows of NaN, or of None for a sparse model."""
    return sparse_rows([None] * n) if dim == SPARSE_DIM else np.full((n, dim), np.nan, np.float32)


def stacked(rows: Sequence[Any]) -> AnyVectors:
    """One array of the rows of a model."""
    if not rows:
        return np.empty((0, 0), np.float32)
    return np.stack(rows) if isinstance(rows[0], np.ndarray) else sparse_rows(rows)


def sound_rows(vectors: AnyVectors) -> npt.NDArray[np.bool_]:
    """Which rows are finite and not all zero, as bool (n,).

    A row of one number is a score, and may be zero; so may a sparse vector.
    """
    if vectors.dtype == object:
        return np.fromiter((row.is_finite for row in vectors), np.bool_, count=len(vectors))
    return np.asarray(np.isfinite(vectors).all(axis=1) & (vectors.any(axis=1) | (vectors.shape[1] == 1)))


def unit_rows(vectors: Vectors) -> Vectors:
    """Scale each row to length 1; float32 (n, dim)."""
    scaled: Vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return scaled


def cosines(one: Vectors, others: Vectors) -> Vectors:
    """The cosine of `one` (dim,) with each row of `others` (n, dim); float32 (n,) in -1..1.

    Equal rows have equal cosines: BLAS would round a product differently at another position of the matrix.
    """
    return pairwise_cosines(np.broadcast_to(one, others.shape), others)


def pairwise_cosines(ones: Vectors, others: Vectors) -> Vectors:
    """The cosine of each row of `ones` (n, dim) with the same row of `others` (n, dim); float32 (n,) in -1..1."""
    lengths = np.linalg.norm(others, axis=1) * np.linalg.norm(ones, axis=1)
    scaled: Vectors = np.clip((ones * others).sum(axis=1) / lengths, -1, 1).astype(np.float32)
    return scaled


def refused_truncation(truncated: Iterable[bool]) -> dict[int, ItemError]:
    """Position → error for each text that the model would cut, for callers that do not allow truncation."""
    error = ItemError.of(TextTooLongError())
    return {i: error for i, cut in enumerate(truncated) if cut}
