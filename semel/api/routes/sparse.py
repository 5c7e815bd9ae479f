"""/embed_sparse as Text Embeddings Inference (TEI) defines it."""

from fastapi import Request, Response

from semel.api.deps import services_of
from semel.api.dialects.embedding import cache_headers, computed, texts_of
from semel.api.dialects.tei import SparseEntry, TeiSparseRequest, sparse_entries, variant_of
from semel.api.edge.as_json import as_json
from semel.api.edge.keys import Scope
from semel.api.edge.reading import read_json, shows_json
from semel.api.edge.traits import DialectRouter, direct
from semel.api.edge.waiting import take_steps
from semel.api.services import Services
from semel.steps import Steps

router = DialectRouter(dialect="tei", tags=["Text Embeddings Inference"], needs=Scope.SUBMIT)


@router.post("/embed_sparse", response_model=list[list[SparseEntry]], openapi_extra=shows_json(TeiSparseRequest))
@direct
async def embed_sparse(request: Request) -> Response:
    """Return the weights of the vocabulary's tokens for each text, in order of the token ids, without zeros."""
    body = await read_json(request, TeiSparseRequest)
    return await take_steps(request, sparse_vectors(body, services_of(request)))


def sparse_vectors(request: TeiSparseRequest, services: Services) -> Steps[Response]:
    """The answer of /embed_sparse. Raises BadInputError, InvalidTextError, and what the pipeline raises."""
    space = services.stores.catalog.space_of_kind("sparse", request.model, request.prompt_name or "")
    space = space.with_variant(variant_of(request.truncation_direction))
    texts = texts_of(request.inputs, services.settings, name="inputs")
    embedded = yield from computed(services, space, texts, truncate=bool(request.truncate))
    body = as_json([sparse_entries(row) for row in embedded.vectors])
    return Response(body, media_type="application/json", headers=cache_headers(embedded))
