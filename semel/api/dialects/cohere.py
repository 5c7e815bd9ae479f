"""Requests and answers as Cohere and Jina define them, for the routes and for the lines of batches."""

import uuid
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, FailFast, Field

from semel.api.dialects.embedding import texts_of, too_large
from semel.api.dialects.openai import ModelName
from semel.api.dialects.strict import StrictRequest
from semel.cache.catalog import InputType
from semel.errors import BadInputError
from semel.rerank import RerankKind, Scores, best_first
from semel.settings import Settings
from semel.values.vectors import Vectors, unit_rows


class RerankRequest(StrictRequest):
    """Cohere's and Jina's request to rerank documents."""

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
    documents: Annotated[list[str | dict[str, Any]], FailFast()] = Field(
        description='Texts, or objects with the text in "text".'
    )
    model: ModelName = None
    top_n: int | None = Field(default=None, ge=1, description="How many documents to return; all of them without it.")
    return_documents: bool = False


class RankedDocument(BaseModel):
    """The text of a document."""

    text: str


class RerankResult(BaseModel):
    """The score of the document at position `index` of the request, from 0."""

    index: int
    relevance_score: float
    document: RankedDocument | None = None


class RerankResponse(BaseModel):
    """The documents, the best first. `meta.kind` names the kind of the scores."""

    id: str
    model: str
    results: list[RerankResult]
    meta: dict[str, Any]
    usage: dict[str, int]


def documents_of(request: RerankRequest, settings: Settings) -> list[str]:
    """Return the texts of a request's documents.

    Raises:
        BadInputError: the query is too long, a document has no text, or the list is empty or too long.
        InvalidTextError: a document is too long.
    """
    check_query(request.query, settings)
    texts = [_text_of(document, i) for i, document in enumerate(request.documents)]
    return texts_of(texts, settings, name="documents")


def check_query(query: str, settings: Settings) -> None:
    """Check the length of a query. Raises BadInputError when it is too long."""
    if len(query) > settings.max_text_bytes:
        raise BadInputError(f"the query {too_large(settings)}")


def rerank_body(
    request: RerankRequest, documents: list[str], scores: Scores, *, model: str, kind: RerankKind, tokens: int
) -> RerankResponse:
    """Return the answer that both Cohere's and Jina's clients understand.

    Args:
        documents: as `documents_of` returns them.
        scores: float32 (len(documents),).
        tokens: read by the model in the query and the documents.
    """
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


INPUT_TYPES: dict[str, InputType] = {"search_query": "query", "search_document": "document"}
"""Cohere's input types for which a model may have a prompt; for the others it has none."""

EmbeddingType = Literal["float", "int8", "uint8", "binary", "ubinary"]
"""Cohere's number types; see `quantized`."""


class CohereEmbedRequest(StrictRequest):
    """Cohere's request to embed texts."""

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
    """One list of vectors for each requested type, in the order of the texts."""

    id: str
    embeddings: dict[EmbeddingType, list[list[float | int]]]
    texts: list[str]
    meta: dict[str, Any]
    response_type: Literal["embeddings_by_type"] = "embeddings_by_type"


def quantized(vectors: Vectors, kind: EmbeddingType) -> Any:
    """Convert vectors to a smaller number type, packed as sentence-transformers packs them.

    int8: the vector scaled to length 1, times 127, rounded; uint8: that plus 128. ubinary: one bit per number, set if
    the number is positive, eight bits per byte; binary: that minus 128. Each vector is quantised alone, so that it does
    not depend on the others of the request. `float` returns the vectors unchanged.

    Args:
        vectors: float32 (n, dim).

    Returns:
        (n, dim), or (n, dim / 8) for the binary types.
    """
    if kind == "float":
        return vectors
    if kind in ("binary", "ubinary"):
        bits = np.packbits(vectors > 0, axis=1)
        return bits if kind == "ubinary" else (bits.astype(np.int16) - 128).astype(np.int8)
    levels = np.rint(unit_rows(vectors) * 127).astype(np.int16)
    return levels if kind == "int8" else levels + 128
