"""POST /v1/embeddings as OpenAI defines it."""

from fastapi import Request, Response

from semel.api.deps import services_of
from semel.api.dialects.embedding import cache_headers, embed_all, space_of, texts_of
from semel.api.dialects.openai import EmbeddingsRequest, EmbeddingsResponse, embeddings_body
from semel.api.edge.as_json import as_json
from semel.api.edge.keys import Scope
from semel.api.edge.reading import read_json, shows_json
from semel.api.edge.traits import DialectRouter, direct
from semel.api.edge.waiting import take_steps
from semel.api.services import Services
from semel.steps import Steps

router = DialectRouter(tags=["OpenAI"], needs=Scope.SUBMIT)


@router.post("/embeddings", response_model=EmbeddingsResponse, openapi_extra=shows_json(EmbeddingsRequest))
@router.post("/v1/embeddings", response_model=EmbeddingsResponse, openapi_extra=shows_json(EmbeddingsRequest))
@direct
async def create_embeddings(request: Request) -> Response:
    """Embed a text or a list of texts. Vectors come from the cache, or are computed once."""
    body = await read_json(request, EmbeddingsRequest)
    return await take_steps(request, _embed(body, services_of(request)))


def _embed(request: EmbeddingsRequest, services: Services) -> Steps[Response]:
    texts = texts_of(request.input, services.settings)
    space = space_of(services.stores.catalog, request)
    embedded, vectors = yield from embed_all(
        services, space, texts, truncate=request.truncate, dimensions=request.dimensions
    )
    body = embeddings_body(request, vectors, model=space.model, tokens=int(embedded.tokens.sum()))
    return Response(as_json(body), media_type="application/json", headers=cache_headers(embedded))
