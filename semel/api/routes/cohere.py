"""POST /v2/embed as Cohere defines it."""

import uuid

from fastapi import Request, Response

from semel.api.deps import services_of
from semel.api.dialects.cohere import INPUT_TYPES, CohereEmbedRequest, CohereEmbedResponse, quantized
from semel.api.dialects.embedding import cache_headers, embed_all, texts_of
from semel.api.edge.as_json import as_json
from semel.api.edge.keys import Scope
from semel.api.edge.reading import read_json, shows_json
from semel.api.edge.traits import DialectRouter, direct
from semel.api.edge.waiting import take_steps
from semel.api.services import Services
from semel.errors import BadInputError
from semel.steps import Steps

router = DialectRouter(dialect="cohere", tags=["Cohere, Jina"], needs=Scope.SUBMIT)


@router.post("/v2/embed", response_model=CohereEmbedResponse, openapi_extra=shows_json(CohereEmbedRequest))
@direct
async def embed(request: Request) -> Response:
    """Embed texts. Every number type is made from the same cached float vectors."""
    body = await read_json(request, CohereEmbedRequest)
    return await take_steps(request, _embed(body, services_of(request)))


def _embed(request: CohereEmbedRequest, services: Services) -> Steps[Response]:
    if request.truncate == "START":
        raise BadInputError("truncate START is not supported, because semel cuts the end of a text; send END or NONE")
    space = services.stores.catalog.space_for_input(request.model, INPUT_TYPES.get(request.input_type))
    texts = texts_of(request.texts, services.settings, name="texts")
    embedded, vectors = yield from embed_all(
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
