"""What a sink is: a place with collections of vectors, one of which answers under the sync's own name."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias
from uuid import UUID

import numpy as np
import numpy.typing as npt

from semel.errors import BadInputError
from semel.sync.document import Payload
from semel.values.vectors import Vectors, unit_rows

Keeps: TypeAlias = Literal["float32", "float16", "direction"]


OWN_FIELDS = ("id", "document", "chunk", "text", "vector")
"""What every row of an index has, next to its payload."""


@dataclass(frozen=True)
class Rows:
    """Chunks as a sink stores them; all lists have one entry for each.

    Attributes:
        ids: as `chunk_id` makes them.
        documents: the ids of their documents.
        numbers: positions in their documents, from 0.
        vectors: float32 (n, dim); None to keep the vectors that are there.
    """

    ids: Sequence[UUID]
    documents: Sequence[str]
    numbers: Sequence[int]
    texts: Sequence[str]
    payloads: Sequence[Payload]
    vectors: Vectors | None

    def __len__(self) -> int:
        return len(self.ids)

    def part(self, positions: Sequence[int]) -> "Rows":
        """The rows at these positions."""
        return Rows(
            [self.ids[i] for i in positions],
            [self.documents[i] for i in positions],
            [self.numbers[i] for i in positions],
            [self.texts[i] for i in positions],
            [self.payloads[i] for i in positions],
            None if self.vectors is None else self.vectors[list(positions)],
        )


@dataclass(frozen=True)
class Match:
    """A chunk that a search found.

    Attributes:
        score: the cosine of its vector and the question's, -1 to 1.
    """

    id: UUID
    document: str
    number: int
    text: str
    payload: Payload
    score: float


@dataclass(frozen=True)
class Layout:
    """What the rows of a collection look like.

    Attributes:
        dim: numbers in a vector.
        payload: the fields of a payload.

    Raises:
        BadInputError: a field of the payload has the name of one of semel's own.
    """

    dim: int
    payload: Sequence[str]

    def __post_init__(self) -> None:
        taken = [name for name in self.payload if name in OWN_FIELDS]
        if taken:
            raise BadInputError(f"the payload cannot have a field {taken[0]!r}, which the index itself has; rename it")


class SinkCollection(Protocol):
    """The rows of one collection. A method returns when the sink has confirmed what it did.

    Attributes:
        keeps: what it keeps of a vector: all of its `float32` numbers, `float16` ones, or its `direction`: numbers of
            float32, scaled so that its length is 1.
    """

    keeps: "Keeps"

    def write(self, rows: Rows) -> None:
        """Insert rows, or replace those of the same ids. Without vectors, rows that it does not have are ignored.

        Raises:
            UnavailableError: the sink does not answer; any part of the rows may be stored.
            BadInputError: the sink cannot store one of the rows.
        """
        ...

    def delete(self, ids: Sequence[UUID]) -> None:
        """Delete rows; ids that it does not have are ignored. Raises UnavailableError."""
        ...

    def read(self, ids: Sequence[UUID] | None = None) -> Iterator[tuple[list[UUID], Vectors | None]]:
        """Parts of rows: the ids and vectors of those of `ids` that it has; or, for None, all ids without vectors."""
        ...

    def search(self, vector: Vectors, *, k: int, where: Payload) -> list[Match]:
        """The k nearest rows by cosine, the best first.

        Args:
            vector: float32 (dim,).
            where: only rows whose payload has these values, compared as text.
        """
        ...

    def finish(self) -> None:
        """End a run: build or bring up to date what makes searches fast. Raises UnavailableError."""
        ...


class Sink(Protocol):
    """A place with collections."""

    def open(self, name: str, layout: Layout, *, make: bool = False) -> SinkCollection:
        """The collection of this name.

        Args:
            make: make it if it is not there.

        Raises:
            NotFoundError: it is not there.
            UnavailableError: the sink does not answer, or its package is not installed.
            BadInputError: the collection has another layout.
        """
        ...

    def serving(self) -> str | None:
        """The collection that the sync's own name stands for; None if there is none."""
        ...

    def serve(self, name: str) -> None:
        """Let the sync's own name stand for this collection, in one step: a reader sees the old one or the new one.

        Raises:
            ConflictError: the sink has no such names, or something else has this one.
        """
        ...

    def drop(self, name: str) -> None:
        """Delete a collection, and the sync's own name if it stands for it. Nothing happens if there is none."""
        ...

    def close(self) -> None:
        """Close the connections."""
        ...


def vectors_of(collection: SinkCollection, ids: Sequence[UUID]) -> dict[UUID, npt.NDArray[np.float32]]:
    """Id → vector, float32 (dim,), for those of `ids` that a collection has. Raises UnavailableError."""
    found: dict[UUID, npt.NDArray[np.float32]] = {}
    for part, vectors in collection.read(ids):
        assert vectors is not None  # only the ids of all rows come without vectors
        found.update(zip(part, vectors, strict=True))
    return found


def agree(keeps: Keeps, stored: Vectors, written: Vectors) -> npt.NDArray[np.bool_]:
    """Which rows of a sink are those that were written, as bool (n,); both are float32 (n, dim).

    Numbers are compared bit for bit, after `written` was rounded as the sink rounds; those of a direction may differ by
    the rounding of its length.
    """
    if keeps == "direction":
        close: npt.NDArray[np.bool_] = (np.abs(unit_rows(stored) - unit_rows(written)) < 1e-6).all(axis=1)
        return close
    rounded = written.astype(np.float16).astype(np.float32) if keeps == "float16" else written
    same: npt.NDArray[np.bool_] = (stored == rounded).all(axis=1)
    return same


def check_where(where: Payload, payload: Sequence[str]) -> None:
    """Raises BadInputError if a field is not kept in the index."""
    unknown = [name for name in where if name not in payload]
    if unknown:
        known = ", ".join(payload) or "none"
        raise BadInputError(f"the index keeps no field {unknown[0]!r} (it keeps: {known})")


def as_text(value: Any) -> str:
    """A value of a payload as text, for sinks whose columns hold text and for comparisons."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
