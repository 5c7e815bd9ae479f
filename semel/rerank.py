"""Rerank: how relevant is each document to a query?

A cross-encoder reads query and document together and scores the pair; the score is cached like a vector. Any
embedding model can rerank too: the score is then the cosine between the two vectors, which come from the cache.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from semel.cache.catalog import Catalog
from semel.cache.keys import input_key
from semel.errors import BadInputError, InvalidTextError, SemelError, is_fault_of_the_text, revive
from semel.pipeline import Pipeline
from semel.values import Embedded, ItemError, Pair, cosines

Scores: TypeAlias = npt.NDArray[np.float32]

RerankKind = Literal["cross-encoder", "embedding similarity"]
"""How scores come about; every answer says it."""


@dataclass(frozen=True)
class Ranked:
    """Documents with their scores.

    Attributes:
        kind: how the scores came about.
        scores: float32 (n,), for the documents in the order they were given. A cosine is in -1..1, the scores of a
            cross-encoder are what its activation function makes of them, mostly 0..1.
        parts: what the cache did.
    """

    kind: RerankKind
    scores: Scores
    parts: tuple[Embedded, ...]

    @property
    def tokens(self) -> int:
        return sum(int(part.tokens.sum()) for part in self.parts)


class Reranker:
    """Scores documents with a cross-encoder or an embedding model. Thread-safe."""

    def __init__(self, pipeline: Pipeline, catalog: Catalog) -> None:
        self._pipeline = pipeline
        self._catalog = catalog

    def rank(self, model: str, query: str, documents: Sequence[str], *, truncate: bool = True) -> Ranked:
        """Score every document.

        With an embedding model, the query gets the model's prompt for queries and the documents that for documents.

        Raises:
            UnknownModelError, and what `Pipeline.embed` raises.
            BadInputError: the query cannot be used.
            InvalidTextError: a document cannot be used; says which.
        """
        try:
            input_key(b"", query)
        except InvalidTextError as invalid:
            raise BadInputError(f"the query {invalid.why}") from None
        if self._catalog.space(model).kind == "cross-encoder":
            return self._by_pairs(model, query, documents, truncate=truncate)
        return self._by_vectors(model, query, documents, truncate=truncate)

    def _by_pairs(self, model: str, query: str, documents: Sequence[str], *, truncate: bool) -> Ranked:
        pairs = [Pair(query, document) for document in documents]
        scored = self._pipeline.embed(self._catalog.space(model), pairs, truncate=truncate)
        for index, error in scored.errors.items():
            raise _failed(f"document {index}", error)
        scores = scored.vectors[:, 0]
        return Ranked("cross-encoder", scores, (scored,))

    def _by_vectors(self, model: str, query: str, documents: Sequence[str], *, truncate: bool) -> Ranked:
        asked = self._pipeline.embed(self._catalog.space_for_input(model, "query"), [query], truncate=truncate)
        for error in asked.errors.values():
            raise _failed("the query", error)
        document_space = self._catalog.space_for_input(model, "document")
        found = self._pipeline.embed(document_space, documents, truncate=truncate)
        for index, error in found.errors.items():
            raise _failed(f"document {index}", error)
        scores = cosines(asked.vectors[0], found.vectors)
        return Ranked("embedding similarity", scores, (asked, found))


def best_first(scores: Scores) -> list[int]:
    """Positions by score; equal ones in the order they were given."""
    order: list[int] = np.argsort(-scores, kind="stable").tolist()
    return order


def _failed(what: str, error: ItemError) -> SemelError:
    message = f"{what} cannot be scored: {error.message}"
    return BadInputError(message) if is_fault_of_the_text(error.code) else revive(error.code, message)
