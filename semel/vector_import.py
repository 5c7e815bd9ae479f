"""Vectors that were computed elsewhere, taken into the cache: after a check that this very model made them.

A wrong hit is worse than a miss, so some texts of every part are computed here and compared.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from semel.cache.codec import check_vectors
from semel.cache.keys import input_key
from semel.cache.store import IMPORTED, VectorStore
from semel.errors import BadInputError, InvalidVectorError
from semel.pipeline import Pipeline
from semel.rows import Record, read_records
from semel.values.model import Space
from semel.values.vectors import Vectors, cosines

LEAST_COSINE = 0.999
"""Of an imported vector and the one computed here: the tolerance of one precision (docs/reference/precision.md)."""

_FIELDS = ("text", "embedding")

_SLICE = 512
"""Rows of a file taken at a time."""

_CHECKED = 3
"""Texts of each part that are computed here."""


class TokenCounter(Protocol):
    """Tells the tokens of each text, and whether the model cuts it."""

    def count_tokens(self, space: Space, texts: Sequence[str]) -> list[tuple[int, bool]]: ...


@dataclass(frozen=True)
class Imported:
    """What became of the vectors: stored now, or there before (and then those were kept)."""

    stored: int
    present: int


class Importer:
    """Takes vectors into the cache.

    Args:
        pipeline: computes the texts that are compared.
        counter: asks the model of a space.
    """

    def __init__(self, store: VectorStore, pipeline: Pipeline, counter: TokenCounter) -> None:
        self._store = store
        self._pipeline = pipeline
        self._counter = counter

    def take_file(self, space: Space, path: Path, *, max_text_bytes: int) -> Iterator[Imported]:
        """Store the rows of a .jsonl or .parquet file with `text` and `embedding`; yields what became of them so far.

        Raises:
            BadInputError: as `take`; says how many rows were taken before.
        """
        done = Imported(0, 0)
        records = read_records(path, _FIELDS, columns=_FIELDS, max_text_bytes=max_text_bytes)
        try:
            while part := list(islice(records, _SLICE)):
                texts, vectors = _texts_and_vectors(part, dim=space.dim, first=done.stored + done.present)
                more = self.take(space, texts, vectors, first=done.stored + done.present)
                done = Imported(done.stored + more.stored, done.present + more.present)
                yield done
        except BadInputError as error:
            raise BadInputError(f"{error} ({done.stored + done.present} rows before were taken)") from None

    def take(self, space: Space, texts: Sequence[str], vectors: Vectors, *, first: int = 0) -> Imported:
        """Store the vectors of these texts; all of them, or on an error none but those that were compared.

        Args:
            vectors: float32 (len(texts), space.dim), made by the model of this space with its prompt.
            first: position of the first text in the whole import, for errors.

        Raises:
            InvalidTextError: a text that has no key.
            BadInputError: the vectors are not those of this model, or are no sound vectors.
        """
        space.check_input(texts[0])
        keys = [input_key(space.fingerprint, text, first + i) for i, text in enumerate(texts)]
        try:
            check_vectors(vectors, dim=space.dim)
        except InvalidVectorError as error:
            raise BadInputError(str(error)) from None
        unknown = np.flatnonzero(~self._store.lookup(keys).present).tolist()
        self._compare(space, texts, vectors, unknown, first)
        counted = self._counter.count_tokens(space, texts)
        stored = self._store.put_many(
            space,
            keys,
            vectors,
            tokens=[tokens for tokens, _ in counted],
            truncated=[cut for _, cut in counted],
            producer=IMPORTED,
        )
        return Imported(stored, len(texts) - stored)

    def _compare(
        self, space: Space, texts: Sequence[str], vectors: Vectors, unknown: Sequence[int], first: int
    ) -> None:
        """Compute some of the texts that the cache lacks; evenly spread, the first and the last among them."""
        if not unknown:
            return
        picked = sorted({unknown[at] for at in np.linspace(0, len(unknown) - 1, _CHECKED).astype(int).tolist()})
        made = self._pipeline.embed(space, [texts[i] for i in picked])
        for row, i in enumerate(picked):
            if row in made.errors:
                raise BadInputError(f"text {first + i} cannot be embedded here: {made.errors[row].message}")
            cosine = float(cosines(made.vectors[row], vectors[i : i + 1])[0])
            lengths = np.linalg.norm(made.vectors[row]), np.linalg.norm(vectors[i])
            if cosine < LEAST_COSINE or abs(lengths[0] - lengths[1]) > 0.01 * lengths[0]:
                raise BadInputError(
                    f"the vector of text {first + i} is not the one that {space.model!r} makes here "
                    f"(cosine {cosine:.4f}, length {lengths[1]:.3f} where {lengths[0]:.3f} belongs): was it made by "
                    "another model or revision, with another prompt, or not normalised?"
                )


def _texts_and_vectors(records: Sequence[Record], *, dim: int, first: int) -> tuple[list[str], Vectors]:
    texts, rows = list[str](), list[Any]()
    for number, record in enumerate(records, start=first + 1):
        text, row = (record.fields.get(name) for name in _FIELDS)
        if record.error or not isinstance(text, str):
            raise BadInputError(f"row {number}: {record.error or 'text is not a string'}")
        if not isinstance(row, list) or len(row) != dim or not all(isinstance(x, int | float) for x in row):
            raise BadInputError(f"row {number}: embedding is not a list of {dim} numbers")
        texts.append(text)
        rows.append(row)
    try:
        return texts, np.array(rows, np.float32)
    except OverflowError:
        raise BadInputError(f"rows {first + 1} to {first + len(rows)}: an embedding holds a number too large") from None
