"""Arrays of vectors, and the answers that carry them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from semel.errors import TextTooLongError
from semel.values.text import ItemError, Outcome

Vectors: TypeAlias = npt.NDArray[np.float32]
"""float32 (n, dim), one row a text, in the order of the texts."""


@dataclass(frozen=True)
class Found:
    """What the cache had, aligned with the keys that were asked for.

    Attributes:
        present: bool (n,). Rows of `vectors`, `tokens` and `truncated` mean something only where it is true.
        vectors: float32 (n, dim), or None for a look-up without vectors.
        tokens: int32 (n,), what the model read, special tokens included.
        truncated: bool (n,), the text was longer than the model reads.
    """

    present: npt.NDArray[np.bool_]
    tokens: npt.NDArray[np.int32]
    truncated: npt.NDArray[np.bool_]
    vectors: Vectors | None = None

    @property
    def all_present(self) -> bool:
        return bool(self.present.all())


@dataclass
class Computed:
    """What became of keys that were missing, filled in as the batches end.

    Attributes:
        inference_s: what the worker took for them, of the time that the caller waited; None when nobody measured it.
    """

    outcomes: dict[bytes, Outcome] = field(default_factory=dict)
    errors: dict[bytes, ItemError] = field(default_factory=dict)
    tokens: dict[bytes, int] = field(default_factory=dict)
    truncated: dict[bytes, bool] = field(default_factory=dict)
    inference_s: float | None = None

    def add(self, key: bytes, outcome: Outcome, *, tokens: int, truncated: bool) -> None:
        self.outcomes[key] = outcome
        self.tokens[key] = tokens
        self.truncated[key] = truncated

    def fail(self, key: bytes, error: ItemError) -> None:
        self.outcomes[key] = Outcome.FAILED
        self.errors[key] = error

    def merge(self, other: "Computed") -> None:
        self.outcomes |= other.outcomes
        self.errors |= other.errors
        self.tokens |= other.tokens
        self.truncated |= other.truncated
        self.inference_s = None if other.inference_s is None else (self.inference_s or 0.0) + other.inference_s


@dataclass(frozen=True)
class Embedded:
    """The answer for a list of texts, row i for text i.

    Attributes:
        vectors: float32 (n, dim); a row of a failed text is never to be read (NaN).
        outcomes: one for each text.
        errors: index of a failed text → why.
        tokens: int32 (n,).
        truncated: bool (n,).
        waited_s: for what was missing: the queue, the worker, and the way there and back.
        inference_s: of these, what the worker took; None when nobody measured it.
    """

    vectors: Vectors
    outcomes: Sequence[Outcome]
    errors: dict[int, ItemError]
    tokens: npt.NDArray[np.int32]
    truncated: npt.NDArray[np.bool_]
    waited_s: float = 0.0
    inference_s: float | None = 0.0

    def count(self, outcome: Outcome) -> int:
        return sum(1 for o in self.outcomes if o is outcome)


def sound_rows(vectors: Vectors) -> npt.NDArray[np.bool_]:
    """bool (n,): which rows are finite and not all zero. A row of one number is a score, and may be zero."""
    return np.asarray(np.isfinite(vectors).all(axis=1) & (vectors.any(axis=1) | (vectors.shape[1] == 1)))


def unit_rows(vectors: Vectors) -> Vectors:
    """float32 (n, dim), each row scaled to length 1."""
    scaled: Vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return scaled


def cosines(one: Vectors, others: Vectors) -> Vectors:
    """float32 (n,) in -1..1: the cosine of `one` (dim,) with each row of `others` (n, dim)."""
    lengths = np.linalg.norm(others, axis=1) * np.linalg.norm(one)
    scaled: Vectors = np.clip((others @ one) / lengths, -1, 1).astype(np.float32)
    return scaled


def refused_truncation(truncated: Iterable[bool]) -> dict[int, ItemError]:
    """Position → error, for each text that the model would cut, when the caller does not allow truncation."""
    error = ItemError.of(TextTooLongError())
    return {i: error for i, cut in enumerate(truncated) if cut}
