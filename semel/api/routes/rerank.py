"""POST /v1/rerank and /v2/rerank as Cohere and Jina define them."""

from fastapi import Request, Response

from semel.api.deps import services_of
from semel.api.dialects.cohere import RerankRequest, RerankResponse, documents_of, rerank_body
from semel.api.dialects.embedding import cache_headers
from semel.api.edge.keys import Scope
from semel.api.edge.traits import DialectRouter
from semel.api.edge.waiting import take_steps
from semel.api.services import Services
from semel.steps import Steps

router = DialectRouter(dialect="cohere", tags=["Cohere, Jina"], needs=Scope.SUBMIT)


@router.post("/v1/rerank", response_model=RerankResponse, response_model_exclude_none=True)
@router.post("/v2/rerank", response_model=RerankResponse, response_model_exclude_none=True)
async def rerank(request: Request, body: RerankRequest, response: Response) -> RerankResponse:
    """Sort documents by their relevance to a query."""
    return await take_steps(request, _rerank(body, services_of(request), response))


def _rerank(request: RerankRequest, services: Services, response: Response) -> Steps[RerankResponse]:
    documents = documents_of(request, services.settings)
    ranked = yield from services.reranker.rank(request.model, request.query, documents)
    response.headers.update(cache_headers(*ranked.parts))
    return rerank_body(request, documents, ranked.scores, model=ranked.model, kind=ranked.kind, tokens=ranked.tokens)
