"""POST /v2/embed, in Cohere's shape."""

import uuid
from typing import Any, Literal

import numpy as np
from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field

from semel.api.deps import ServicesDep
from semel.api.dialects.embedding import cache_headers, embed_all, texts_of
from semel.api.dialects.openai import ModelName
from semel.api.edge.access import MAY_SUBMIT
from semel.api.edge.as_json import as_json
from semel.cache.catalog import InputType
from semel.errors import BadInputError
from semel.values import Vectors, unit_rows

router = APIRouter(tags=["Cohere, Jina"], dependencies=MAY_SUBMIT)

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


@router.post("/v2/embed", response_model=CohereEmbedResponse)
def embed(request: CohereEmbedRequest, services: ServicesDep) -> Response:
    """Vectors for texts; every type is cut from the one float vector that the cache holds."""
    if request.truncate == "START":
        raise BadInputError("truncate START is not offered: semel's models cut the end; send END or NONE")
    space = services.catalog.space_for_input(request.model, _INPUT_TYPES.get(request.input_type))
    texts = texts_of(request.texts, services.settings, name="texts")
    embedded, vectors = embed_all(
        services, space, texts, truncate=request.truncate == "END", dimensions=request.output_dimension
    )
    answer = {
        "id": str(uuid.uuid4()),
        "embeddings": {kind: quantized(vectors, kind) for kind in request.embedding_types},
        "texts": texts,
        "meta": {"api_version": {"version": "2"}, "billed_units": {"input_tokens": int(embedded.tokens.sum())}},
        "response_type": "embeddings_by_type",
    }
    return Response(as_json(answer), media_type="application/json", headers=cache_headers(embedded))


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
