"""Rerank: score the relevance of documents to a query.

A cross-encoder reads query and document together and scores the pair; the score is cached like a vector. Any
embedding model can rerank too: the score is then the cosine between the two vectors, which the cache provides.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from semel.cache.catalog import Catalog
from semel.cache.keys import check_text
from semel.errors import BadInputError, InvalidTextError, SemelError, UnavailableError, is_fault_of_the_text, revive
from semel.pipeline import Pipeline
from semel.steps import Steps
from semel.values.model import Space
from semel.values.text import Input, ItemError, Pair
from semel.values.vectors import Embedded, Vectors, cosines

Scores: TypeAlias = npt.NDArray[np.float32]
"""float32 (documents,)."""

RerankKind = Literal["cross-encoder", "embedding similarity"]
"""How the scores were computed; every answer states it."""


@dataclass(frozen=True)
class Ranked:
    """Documents with their scores.

    Attributes:
        model: its name, even if the caller named none.
        kind: how the scores were computed.
        scores: float32 (n,), in the order of the documents. A cosine is in -1..1; the range of a cross-encoder's
            scores depends on its activation function and is mostly 0..1.
        parts: the pipeline's answers behind the scores, with the outcomes of the texts.
    """

    model: str
    kind: RerankKind
    scores: Scores
    parts: tuple[Embedded, ...]

    @property
    def tokens(self) -> int:
        """Tokens that the model read."""
        return sum(int(part.tokens.sum()) for part in self.parts)


class Reranker:
    """Scores documents with a cross-encoder or an embedding model. Thread-safe."""

    def __init__(self, pipeline: Pipeline, catalog: Catalog) -> None:
        self._pipeline = pipeline
        self._catalog = catalog

    def rank(self, model: str | None, query: str, documents: Sequence[str], *, truncate: bool = True) -> Steps[Ranked]:
        """Score every document.

        Args:
            model: a name from the catalog; None for the default.
            query: the text that the documents are scored for.
            documents: at least one text.
            truncate: if False, an input above the model's limit fails instead of being cut.

        Raises:
            SemelError: what `inputs`, `Pipeline.steps` and `no_score` describe.
        """
        kind, inputs = self.inputs(model, query, documents)
        parts: list[Embedded] = []
        for space, group in groupby(inputs, key=itemgetter(0)):
            part = yield from self._pipeline.steps(space, [item for _, item in group], truncate=truncate)
            for index, error in part.errors.items():
                raise no_score(kind, index + sum(len(before.vectors) for before in parts), error)
            parts.append(part)
        scores = scores_of(kind, np.concatenate([part.vectors for part in parts]))
        return Ranked(inputs[0][0].model, kind, scores, tuple(parts))

    def inputs(
        self, model: str | None, query: str, documents: Sequence[str]
    ) -> tuple[RerankKind, list[tuple[Space, Input]]]:
        """The inputs from which the scores are computed, in order, each with its space; see `scores_of`.

        With an embedding model, the query gets the model's prompt for queries, and each document that for documents.

        Raises:
            UnknownModelError: no worker has ever served the model.
            BadInputError: the query cannot be used.
            InvalidTextError: a document cannot be used; the message names it.
            UnavailableError: other weights are being published under the model's name.
        """
        try:
            check_text(query, 0)
        except InvalidTextError as invalid:
            raise BadInputError(f"the query {invalid.why}") from None
        for index, document in enumerate(documents):
            check_text(document, index)
        space = self._catalog.space(model)
        if space.kind == "cross-encoder":
            return "cross-encoder", [(space, Pair(query, document)) for document in documents]
        of_query, of_documents = (self._catalog.space_for_input(model, kind) for kind in ("query", "document"))
        if of_query.weights != of_documents.weights:
            raise UnavailableError(f"the weights of {space.model!r} are being replaced; try again in a second")
        return "embedding similarity", [(of_query, query), *((of_documents, document) for document in documents)]


def scores_of(kind: RerankKind, vectors: Vectors) -> Scores:
    """The scores, float32 (documents,), from the vectors of `Reranker.inputs`, float32 (inputs, dim)."""
    return vectors[:, 0] if kind == "cross-encoder" else cosines(vectors[0], vectors[1:])


def best_first(scores: Scores) -> list[int]:
    """Positions by descending score; those with equal scores keep their order."""
    order: list[int] = np.argsort(-scores, kind="stable").tolist()
    return order


def no_score(kind: RerankKind, at: int, error: ItemError) -> SemelError:
    """The error of a request whose input at this position of `Reranker.inputs` has failed.

    BadInputError if the text is at fault, otherwise the class that belongs to the error's code.
    """
    document = at if kind == "cross-encoder" else at - 1
    message = f"{'the query' if document < 0 else f'document {document}'} cannot be scored: {error.message}"
    return BadInputError(message) if is_fault_of_the_text(error.code) else revive(error.code, message)
