"""POST /v2/embed and /v1/embed as Cohere defines them."""

import uuid
from typing import Any

from fastapi import Request, Response

from semel.api.deps import services_of
from semel.api.dialects.cohere import (
    INPUT_TYPES,
    CohereEmbedRequest,
    CohereEmbedResponse,
    CohereV1EmbedRequest,
    CohereV1EmbedResponse,
    EmbeddingType,
)
from semel.api.dialects.embedding import cache_headers, embed_all, texts_of
from semel.api.dialects.number_types import as_base64, quantized
from semel.api.edge.as_json import as_json
from semel.api.edge.keys import Scope
from semel.api.edge.reading import read_json, shows_json
from semel.api.edge.traits import DialectRouter, direct
from semel.api.edge.waiting import take_steps
from semel.api.services import Services
from semel.steps import Steps
from semel.values.vectors import Vectors

router = DialectRouter(dialect="cohere", tags=["Cohere, Jina"], needs=Scope.SUBMIT)


@router.post("/v2/embed", response_model=CohereEmbedResponse, openapi_extra=shows_json(CohereEmbedRequest))
@direct
async def embed(request: Request) -> Response:
    """Embed texts. Every number type is made from the same cached float vectors."""
    body = await read_json(request, CohereEmbedRequest)
    return await take_steps(request, _embed(body, services_of(request), version="2"))


@router.post("/v1/embed", response_model=CohereV1EmbedResponse, openapi_extra=shows_json(CohereV1EmbedRequest))
@direct
async def embed_v1(request: Request) -> Response:
    """Embed texts, as Cohere's older clients ask for it."""
    body = await read_json(request, CohereV1EmbedRequest)
    return await take_steps(request, _embed(body, services_of(request), version="1"))


def _embed(request: CohereEmbedRequest, services: Services, *, version: str) -> Steps[Response]:
    space = services.stores.catalog.space_for_input(request.model, INPUT_TYPES.get(request.input_type))
    texts = texts_of(request.given_texts(), services.settings, name="texts" if request.inputs is None else "inputs")
    embedded, vectors = yield from embed_all(
        services,
        space.with_variant(request.variant),
        texts,
        truncate=request.truncate != "NONE",
        dimensions=request.output_dimension,
    )
    tokens = {"input_tokens": int(embedded.tokens.sum())}
    answer = {
        "id": str(uuid.uuid4()),
        **_vectors(request.embedding_types, vectors),
        "texts": texts,
        "meta": {"api_version": {"version": version}, "billed_units": tokens, "tokens": tokens},
    }
    return Response(as_json(answer), media_type="application/json", headers=cache_headers(embedded))


def _vectors(kinds: list[EmbeddingType] | None, vectors: Vectors) -> dict[str, Any]:
    if kinds is None:
        return {"embeddings": list(vectors), "response_type": "embeddings_floats"}
    by_type = {kind: as_base64(vectors) if kind == "base64" else list(quantized(vectors, kind)) for kind in kinds}
    return {"embeddings": by_type, "response_type": "embeddings_by_type"}
