"""Import of vectors that were computed elsewhere, after a check that the same model computed them.

A wrong hit is worse than a miss, so some texts of each part are computed here and compared.
"""

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
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
"""Lowest cosine of an imported vector and the one computed here, from docs/reference/precision.md."""

_FIELDS = ("text", "embedding")

_SLICE = 512
"""Rows of a file that are imported at a time."""

LEAST_CHECKED = 3
"""At least this many texts of each part are computed here for the comparison, the first and the last among them."""

CHECKED_SHARE = 0.05
"""Share of the texts that are computed here for the comparison, unless the caller asks for another."""


class TokenCounter(Protocol):
    """Counts tokens with the tokenizer of a model."""

    def count_tokens(self, space: Space, texts: Sequence[str]) -> list[tuple[int, bool]]:
        """The tokens of each text, and whether the model cuts it."""


@dataclass(frozen=True)
class Imported:
    """Numbers of imported vectors.

    Attributes:
        stored: new in the cache.
        present: dropped, because the cache already had a vector for the text.
        compared: computed again, and found to be the same. Any comparison finds a shift of all rows; a swap of two rows
            is found if one of them was compared, so with a probability of 1 - (1 - share)².
    """

    stored: int
    present: int
    compared: int = field(default=0, compare=False)


class Importer:
    """Imports vectors into the cache.

    Args:
        store: the cache.
        pipeline: computes the texts that are compared.
        counter: counts the tokens that are stored with each vector.
    """

    def __init__(self, store: VectorStore, pipeline: Pipeline, counter: TokenCounter) -> None:
        self._random = random.SystemRandom()  # no pattern in a file can escape it
        self._store = store
        self._pipeline = pipeline
        self._counter = counter

    def take_file(
        self,
        space: Space,
        path: Path,
        *,
        max_text_bytes: int,
        isolate: bool = False,
        share: float = CHECKED_SHARE,
    ) -> Iterator[Imported]:
        """Store the rows of a .jsonl or .parquet file with the fields `text` and `embedding`.

        Yields the numbers so far after each part.

        Args:
            share: as for `take`.

        Raises:
            BadInputError: as for `take`; the message states how many rows were imported before.
        """
        done = Imported(0, 0)
        records = read_records(path, _FIELDS, columns=_FIELDS, max_text_bytes=max_text_bytes, isolate=isolate)
        try:
            while part := list(islice(records, _SLICE)):
                texts, vectors = _texts_and_vectors(part, dim=space.dim, first=done.stored + done.present)
                more = self.take(space, texts, vectors, first=done.stored + done.present, share=share)
                compared = done.compared + more.compared
                done = Imported(done.stored + more.stored, done.present + more.present, compared)
                yield done
        except BadInputError as error:
            raise BadInputError(f"{error} ({done.stored + done.present} rows before it were imported)") from None

    def take(
        self, space: Space, texts: Sequence[str], vectors: Vectors, *, first: int = 0, share: float = CHECKED_SHARE
    ) -> Imported:
        """Store the vectors of these texts; on an error, only those that were computed for the comparison.

        Args:
            space: the vector space of the model and its prompt.
            texts: at least one text.
            vectors: float32 (len(texts), space.dim), computed by the model of this space with its prompt.
            first: position of the first text in the whole import, for error messages.
            share: of the texts, those that are computed again and compared, 0 to 1; at least `LEAST_CHECKED` of them.

        Raises:
            InvalidTextError: a text that has no key.
            BadInputError: the model computes no dense vectors, a vector is not that of this model, or a vector is NaN,
                infinite or zero.
        """
        space.check_kind("embed")
        keys = [input_key(space.key_base, text, first + i) for i, text in enumerate(texts)]
        try:
            check_vectors(vectors, dim=space.dim)
        except InvalidVectorError as error:
            raise BadInputError(str(error)) from None
        unknown = np.flatnonzero(~self._store.lookup(keys).present).tolist()
        picked = self._pick(unknown, share)
        self._compare(space, texts, vectors, picked, first)
        counted = self._counter.count_tokens(space, texts)
        stored = self._store.put_many(
            space,
            keys,
            vectors,
            tokens=[tokens for tokens, _ in counted],
            truncated=[cut for _, cut in counted],
            producer=IMPORTED,
        )
        return Imported(stored, len(texts) - stored, len(picked))

    def _pick(self, unknown: Sequence[int], share: float) -> list[int]:
        """Some of the texts that the cache lacks: the first, the last, and others at random."""
        count = min(len(unknown), max(LEAST_CHECKED, math.ceil(share * len(unknown))))
        inner = self._random.sample(unknown[1:-1], max(0, count - 2)) if count > 2 else []
        return sorted({*unknown[:1], *unknown[-1:], *inner})

    def _compare(self, space: Space, texts: Sequence[str], vectors: Vectors, picked: Sequence[int], first: int) -> None:
        """Compute these texts. Raises BadInputError if one of the vectors differs."""
        if not picked:
            return
        computed = self._pipeline.embed(space, [texts[i] for i in picked])
        for row, i in enumerate(picked):
            if row in computed.errors:
                raise BadInputError(f"text {first + i} cannot be embedded here: {computed.errors[row].message}")
            cosine = float(cosines(computed.vectors[row], vectors[i : i + 1])[0])
            own_length, length = np.linalg.norm(computed.vectors[row]), np.linalg.norm(vectors[i])
            if cosine < LEAST_COSINE or abs(own_length - length) > 0.01 * own_length:
                raise BadInputError(
                    f"the vector of text {first + i} differs from the one that {space.model!r} computes here "
                    f"(cosine {cosine:.4f}, length {length:.3f} instead of {own_length:.3f}); check that it comes from "
                    "the same model, revision and prompt, and is normalised in the same way"
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
        where = f"rows {first + 1} to {first + len(rows)}"
        raise BadInputError(f"{where}: a number in an embedding is too large for a float32") from None
