"""Rerank: score the relevance of documents to a query.

A cross-encoder reads query and document together and scores the pair; the score is cached like a vector. Any
embedding model can rerank too: the score is then the cosine between the two vectors, which the cache provides.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from operator import itemgetter
from typing import Literal, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from semel.cache.catalog import InputType
from semel.cache.keys import check_text
from semel.error_codes import is_fault_of_the_text, revive
from semel.errors import BadInputError, InvalidTextError, SemelError, UnavailableError
from semel.pipeline import Pipeline
from semel.steps import Steps
from semel.values.activation import activated
from semel.values.model import Space
from semel.values.text import Input, ItemError, Pair
from semel.values.variant import AS_DEFINED, Variant
from semel.values.vectors import Embedded, Vectors, cosines, pairwise_cosines

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
            scores depends on its activation function and is mostly 0..1; logits have no bounds.
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


_KINDS: tuple[InputType, InputType] = ("query", "document")


class Spaces(Protocol):
    """The vector spaces of models by name; `semel.cache.catalog.Catalog` is one."""

    def space(self, model: str | None = None) -> Space:
        """The space of a model without a prompt."""

    def space_for_input(self, model: str | None, input_type: InputType | None) -> Space:
        """The space of the model's prompt for texts of this kind, or that without a prompt if it has none."""


class Reranker:
    """Scores documents with a cross-encoder or an embedding model. Thread-safe."""

    def __init__(self, pipeline: Pipeline, catalog: Spaces) -> None:
        self._pipeline = pipeline
        self._catalog = catalog

    def rank(
        self,
        model: str | None,
        query: str,
        documents: Sequence[str],
        *,
        truncate: bool = True,
        variant: Variant = AS_DEFINED,
        raw: bool = False,
    ) -> Steps[Ranked]:
        """Score every document.

        Args:
            model: a name from the catalog; None for the default.
            query: the text that the documents are scored for.
            documents: at least one text.
            truncate: if False, an input above the model's limit fails instead of being cut.
            variant: how the inputs are read.
            raw: return a cross-encoder's logits instead of its scores. A cosine is the same either way.

        Raises:
            SemelError: what `inputs`, `Pipeline.steps` and `no_score` describe.
        """
        kind, inputs = self.inputs(model, query, documents, variant=variant)
        parts = yield from self._computed(inputs, lambda at, error: no_score(kind, at, error), truncate=truncate)
        space = inputs[0][0]
        scores = scores_of(space, np.concatenate([part.vectors for part in parts]), raw=raw)
        return Ranked(space.model, kind, scores, tuple(parts))

    def score(
        self,
        model: str | None,
        pairs: Sequence[Pair],
        *,
        variant: Variant = AS_DEFINED,
        raw: bool = False,
    ) -> Steps[Ranked]:
        """Score pairs with different queries; their order and the other arguments are as of `rank`.

        Raises:
            SemelError: as `rank`.
        """
        for index, pair in enumerate(pairs):
            for side, text in zip(("a first text that ", "a second text that "), pair, strict=True):
                check_text(text, index, f"has {side}")
        space = self._catalog.space(model)
        if space.kind == "cross-encoder":
            space = space.with_variant(variant)
            parts = yield from self._computed([(space, pair) for pair in pairs], _no_pair)
            return Ranked(space.model, "cross-encoder", scores_of(space, parts[0].vectors, raw=raw), tuple(parts))
        of_query, of_documents = self._spaces(space, variant)
        inputs: list[tuple[Space, Input]] = [(of_query, pair.query) for pair in pairs]
        inputs += [(of_documents, pair.document) for pair in pairs]
        parts = yield from self._computed(inputs, lambda at, error: _no_pair(at % len(pairs), error))
        vectors = np.concatenate([part.vectors for part in parts])
        return Ranked(
            space.model,
            "embedding similarity",
            pairwise_cosines(vectors[: len(pairs)], vectors[len(pairs) :]),
            tuple(parts),
        )

    def _computed(
        self,
        inputs: Sequence[tuple[Space, Input]],
        failed: Callable[[int, ItemError], SemelError],
        *,
        truncate: bool = True,
    ) -> Steps[list[Embedded]]:
        """The answers for inputs, one for each run of inputs of one space. Raises what `failed` makes of an error."""
        parts: list[Embedded] = []
        for space, group in groupby(inputs, key=itemgetter(0)):
            part = yield from self._pipeline.steps(space, [item for _, item in group], truncate=truncate)
            for index, error in part.errors.items():
                raise failed(index + sum(len(before.vectors) for before in parts), error)
            parts.append(part)
        return parts

    def inputs(
        self, model: str | None, query: str, documents: Sequence[str], *, variant: Variant = AS_DEFINED
    ) -> tuple[RerankKind, list[tuple[Space, Input]]]:
        """The inputs from which the scores are computed, in order, each with its space; see `scores_of`.

        With an embedding model, the query gets the model's prompt for queries, and each document that for documents.

        Args:
            variant: how the inputs are read; its `document_tokens` do not count for the query.

        Raises:
            UnknownModelError: no worker has ever served the model.
            BadInputError: the query cannot be used, or the model cannot be read in this variant.
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
            space = space.with_variant(variant)
            return "cross-encoder", [(space, Pair(query, document)) for document in documents]
        of_query, of_documents = self._spaces(space, variant)
        return "embedding similarity", [(of_query, query), *((of_documents, document) for document in documents)]

    def _spaces(self, space: Space, variant: Variant) -> tuple[Space, Space]:
        """The spaces for queries and for documents of an embedding model. Raises UnavailableError, BadInputError."""
        space.check_kind("embed")
        of_query, of_documents = (self._catalog.space_for_input(space.model, kind) for kind in _KINDS)
        if of_query.weights != of_documents.weights:
            raise UnavailableError(f"the weights of {space.model!r} are being replaced; try again in a second")
        return of_query.with_variant(replace(variant, document_tokens=None)), of_documents.with_variant(variant)


def scores_of(space: Space, vectors: Vectors, *, raw: bool = False) -> Scores:
    """The scores, float32 (documents,), from the vectors of `Reranker.inputs`, float32 (inputs, dim).

    Args:
        space: that of the first input.
        raw: return a cross-encoder's logits.
    """
    if space.kind != "cross-encoder":
        return cosines(vectors[0], vectors[1:])
    logits: Scores = vectors[:, 0]
    return logits if raw else activated(space.head.activation, logits)


def _no_pair(at: int, error: ItemError) -> SemelError:
    """The error of a request whose pair at this position has no score."""
    message = f"pair {at} cannot be scored: {error.message}"
    return BadInputError(message) if is_fault_of_the_text(error.code) else revive(error.code, message)


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
