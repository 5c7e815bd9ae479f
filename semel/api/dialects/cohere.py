"""Cohere's and Jina's request and answer in one, for the route and for the lines of batches."""

import uuid
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from semel.api.dialects.embedding import texts_of, too_large
from semel.api.dialects.openai import ModelName
from semel.cache.catalog import InputType
from semel.errors import BadInputError
from semel.rerank import RerankKind, Scores, best_first
from semel.settings import Settings
from semel.values.vectors import Vectors, unit_rows


class RerankRequest(BaseModel):
    """Cohere's and Jina's request."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "model": "minilm",
                "query": "how do I parse a JSON string?",
                "documents": ["Deserialize a str that holds a JSON document.", "Sort a list in place."],
                "top_n": 1,
            }
        }
    )

    query: str
    documents: list[str | dict[str, Any]] = Field(description='Texts, or objects with the text in "text".')
    model: ModelName = None
    top_n: int | None = Field(default=None, ge=1, description="How many to return; all of them when left out.")
    return_documents: bool = False


class RankedDocument(BaseModel):
    text: str


class RerankResult(BaseModel):
    index: int
    relevance_score: float
    document: RankedDocument | None = None


class RerankResponse(BaseModel):
    """The documents, the best first. `meta.kind` says how the scores came about."""

    id: str
    model: str
    results: list[RerankResult]
    meta: dict[str, Any]
    usage: dict[str, int]


def documents_of(request: RerankRequest, settings: Settings) -> list[str]:
    """The texts of a request's documents. Raises BadInputError, InvalidTextError."""
    check_query(request.query, settings)
    texts = [_text_of(document, i) for i, document in enumerate(request.documents)]
    return texts_of(texts, settings, name="documents")


def check_query(query: str, settings: Settings) -> None:
    """Raises BadInputError when it is too long."""
    if len(query) > settings.max_text_bytes:
        raise BadInputError(f"the query {too_large(settings)}")


def rerank_body(
    request: RerankRequest, documents: list[str], scores: Scores, *, model: str, kind: RerankKind, tokens: int
) -> RerankResponse:
    """Cohere's and Jina's answer."""
    return RerankResponse(
        id=str(uuid.uuid4()),
        model=model,
        results=[
            RerankResult(
                index=i,
                relevance_score=float(scores[i]),
                document=RankedDocument(text=documents[i]) if request.return_documents else None,
            )
            for i in best_first(scores)[: request.top_n]
        ],
        meta={
            "api_version": {"version": "2"},
            "billed_units": {"search_units": 1},
            "tokens": {"input_tokens": tokens},
            "kind": kind,
        },
        usage={"total_tokens": tokens},
    )


def _text_of(document: str | dict[str, Any], index: int) -> str:
    text = document.get("text") if isinstance(document, dict) else document
    if not isinstance(text, str):
        raise BadInputError(f'document {index} has no string in "text"; send texts, or objects with that field')
    return text


_INPUT_TYPES: dict[str, InputType] = {"search_query": "query", "search_document": "document"}
"""Cohere's words for what may have a prompt of its own; the others have none."""

EmbeddingType = Literal["float", "int8", "uint8", "binary", "ubinary"]


class CohereEmbedRequest(BaseModel):
    """Cohere's request for embeddings of texts."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "model": "minilm",
                "texts": ["The cat sat on the mat."],
                "input_type": "search_document",
                "embedding_types": ["float", "int8"],
            }
        }
    )

    texts: list[str]
    model: ModelName = None
    input_type: Literal["search_document", "search_query", "classification", "clustering"]
    embedding_types: list[EmbeddingType] = Field(default=["float"], min_length=1)
    output_dimension: int | None = Field(default=None, ge=1)
    truncate: Literal["NONE", "START", "END"] = "END"


class CohereEmbedResponse(BaseModel):
    """A list of vectors for each of the types that were asked for."""

    id: str
    embeddings: dict[EmbeddingType, list[list[float | int]]]
    texts: list[str]
    meta: dict[str, Any]
    response_type: Literal["embeddings_by_type"] = "embeddings_by_type"


def quantized(vectors: Vectors, kind: EmbeddingType) -> Any:
    """Vectors of length 1 in a smaller type, as sentence-transformers packs them.

    int8: 127 times the number, rounded; uint8: 128 more. ubinary: one bit a number, set when it is positive, eight
    to a byte; binary: 128 less. Each vector is quantised by itself, so that it does not depend on its neighbours.

    Args:
        vectors: float32 (n, dim).

    Returns: (n, dim), or (n, dim / 8) for the binary ones.
    """
    if kind == "float":
        return vectors
    if kind in ("binary", "ubinary"):
        bits = np.packbits(vectors > 0, axis=1)
        return bits if kind == "ubinary" else (bits.astype(np.int16) - 128).astype(np.int8)
    levels = np.rint(unit_rows(vectors) * 127).astype(np.int16)
    return levels if kind == "int8" else levels + 128
