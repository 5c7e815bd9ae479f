"""Rerank by embedding similarity: the score of a document is the cosine between its vector and the query's.

Any embedding model can do it, and the vectors of the documents come from the cache.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from semel.cache.catalog import Catalog
from semel.errors import BadInputError, InvalidTextError, SemelError, is_fault_of_the_text, revive
from semel.pipeline import Pipeline
from semel.values import Embedded, ItemError, cosines

KIND = "embedding similarity"
"""What an answer says of how its scores came about."""


@dataclass(frozen=True)
class Ranked:
    """Documents with their scores.

    Attributes:
        scores: float32 (n,) in -1..1, for the documents in the order they were given.
        order: positions of the documents, the best first; equal scores keep the order they were given in.
        query, documents: what the cache did for each side.
    """

    scores: npt.NDArray[np.float32]
    order: list[int]
    query: Embedded
    documents: Embedded

    @property
    def tokens(self) -> int:
        return int(self.query.tokens.sum() + self.documents.tokens.sum())


class SimilarityReranker:
    """Scores documents with an embedding model. Thread-safe."""

    def __init__(self, pipeline: Pipeline, catalog: Catalog) -> None:
        self._pipeline = pipeline
        self._catalog = catalog

    def rank(self, model: str, query: str, documents: Sequence[str], *, truncate: bool = True) -> Ranked:
        """Score every document.

        The query gets the model's prompt for queries, the documents that for documents, where it has them.

        Raises:
            UnknownModelError, and what `Pipeline.embed` raises.
            BadInputError: the query cannot be embedded.
            InvalidTextError: a document cannot be embedded; says which.
        """
        query_space = self._catalog.space_for_input(model, "query")
        document_space = self._catalog.space_for_input(model, "document")
        try:
            asked = self._pipeline.embed(query_space, [query], truncate=truncate)
        except InvalidTextError as invalid:
            raise BadInputError(f"the query {invalid.why}") from None
        for error in asked.errors.values():
            raise _failed("the query", error)
        found = self._pipeline.embed(document_space, documents, truncate=truncate)
        for index, error in found.errors.items():
            raise _failed(f"document {index}", error)
        scores = cosines(asked.vectors[0], found.vectors)
        order = np.argsort(-scores, kind="stable").tolist()
        return Ranked(scores, order, asked, found)


def _failed(what: str, error: ItemError) -> SemelError:
    message = f"{what} has no vector: {error.message}"
    return BadInputError(message) if is_fault_of_the_text(error.code) else revive(error.code, message)
