"""POST /v1/rerank and /v2/rerank as Cohere and Jina define them."""

from fastapi import Request, Response

from semel.api.deps import services_of
from semel.api.dialects.cohere import RerankRequest, RerankResponse, documents_of, rerank_body
from semel.api.dialects.embedding import cache_headers
from semel.api.edge.keys import Scope
from semel.api.edge.reading import read_json, shows_json
from semel.api.edge.traits import DialectRouter, direct
from semel.api.edge.waiting import take_steps
from semel.api.services import Services
from semel.steps import Steps

router = DialectRouter(dialect="cohere", tags=["Cohere, Jina"], needs=Scope.SUBMIT)


@router.post("/v1/rerank", response_model=RerankResponse, openapi_extra=shows_json(RerankRequest))
@router.post("/v2/rerank", response_model=RerankResponse, openapi_extra=shows_json(RerankRequest))
@direct
async def rerank(request: Request) -> Response:
    """Sort documents by their relevance to a query."""
    body = await read_json(request, RerankRequest)
    return await take_steps(request, rerank_documents(body, services_of(request)))


def rerank_documents(request: RerankRequest, services: Services) -> Steps[Response]:
    """The answer to a request, in steps. Raises SemelError."""
    documents = documents_of(request, services.settings)
    ranked = yield from services.reranker.rank(
        request.model,
        request.query,
        documents,
        truncate=request.truncate,
        variant=request.variant,
        raw=request.raw,
    )
    answer = rerank_body(request, ranked.scores, model=ranked.model, kind=ranked.kind, tokens=ranked.tokens)
    body = answer.model_dump_json(exclude_none=True)
    return Response(body, media_type="application/json", headers=cache_headers(*ranked.parts))
