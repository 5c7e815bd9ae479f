"""POST /v1/embeddings, in OpenAI's shape."""

import base64
from typing import Any

from fastapi import APIRouter, Response

from semel.api.access import MAY_SUBMIT
from semel.api.as_json import as_json
from semel.api.deps import ServicesDep
from semel.api.embedding import cache_headers, embed_all, texts_of
from semel.api.schemas import EmbeddingsRequest, EmbeddingsResponse
from semel.cache.catalog import Catalog
from semel.errors import BadInputError
from semel.values import Space, Vectors

router = APIRouter(tags=["OpenAI"], dependencies=MAY_SUBMIT)


@router.post("/v1/embeddings", response_model=EmbeddingsResponse)
def create_embeddings(request: EmbeddingsRequest, services: ServicesDep) -> Response:
    """Vectors for a text or a list of texts: from the cache, or computed once."""
    texts = texts_of(request.input, limit=services.settings.max_request_texts)
    space = space_of(services.catalog, request)
    embedded, vectors = embed_all(services, space, texts, truncate=request.truncate, dimensions=request.dimensions)
    body = embeddings_body(request, vectors, tokens=int(embedded.tokens.sum()))
    return Response(as_json(body), media_type="application/json", headers=cache_headers(embedded))


def space_of(catalog: Catalog, request: EmbeddingsRequest) -> Space:
    """The space that a request means. Raises UnknownModelError, BadInputError."""
    if request.input_type and request.prompt_name:
        raise BadInputError("input_type and prompt_name both name a prompt; send one of them")
    if request.input_type:
        return catalog.space_for_input(request.model, request.input_type)
    return catalog.space(request.model, request.prompt_name)


def embeddings_body(request: EmbeddingsRequest, vectors: Vectors, *, tokens: int) -> dict[str, Any]:
    """OpenAI's answer, for `as_json`: pydantic would walk every number."""
    if request.encoding_format == "base64":
        encoded: list[Any] = [base64.b64encode(row.tobytes()).decode() for row in vectors.astype("<f4")]
    else:
        encoded = list(vectors)
    return {
        "object": "list",
        "data": [{"object": "embedding", "index": i, "embedding": e} for i, e in enumerate(encoded)],
        "model": request.model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }
