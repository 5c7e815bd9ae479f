"""/api/v1/embed/ and /api/v1/rerank/ as the service embed-rerank defines them."""

import time
from datetime import UTC, datetime

from fastapi import Request, Response

from semel.api.deps import services_of
from semel.api.dialects.cohere import check_query, text_of
from semel.api.dialects.embed_rerank import (
    ErEmbedRequest,
    ErEmbedResponse,
    ErRanked,
    ErRerankRequest,
    ErRerankResponse,
)
from semel.api.dialects.embedding import cache_headers, embed_all, texts_of
from semel.api.edge.as_json import as_json
from semel.api.edge.keys import Scope
from semel.api.edge.reading import read_json, shows_json
from semel.api.edge.traits import DialectRouter, direct
from semel.api.edge.waiting import take_steps
from semel.api.services import Services
from semel.rerank import best_first
from semel.steps import Steps

router = DialectRouter(tags=["embed-rerank"], needs=Scope.SUBMIT)


@router.post("/api/v1/embed", response_model=ErEmbedResponse, openapi_extra=shows_json(ErEmbedRequest))
@router.post("/api/v1/embed/", response_model=ErEmbedResponse, openapi_extra=shows_json(ErEmbedRequest))
@direct
async def embed(request: Request) -> Response:
    """Embed texts, in order."""
    body = await read_json(request, ErEmbedRequest)
    return await take_steps(request, _embed(body, services_of(request)))


def _embed(request: ErEmbedRequest, services: Services) -> Steps[Response]:
    started = time.perf_counter()
    space = services.stores.catalog.space(request.model).with_variant(request.variant)
    texts = texts_of(request.texts, services.settings, name="texts")
    embedded, vectors = yield from embed_all(services, space, texts, truncate=request.truncate)
    seconds = time.perf_counter() - started
    answer = {
        "embeddings": [
            {"embedding": row, "index": i, "text": text}
            for i, (row, text) in enumerate(zip(vectors, texts, strict=True))
        ],
        "vectors": list(vectors),
        "dim": vectors.shape[1],
        "backend": "semel",
        "device": services.fleet.router.route(space).device,
        "processing_time": seconds,
        "model_info": space.model,
        "usage": {
            "total_texts": len(texts),
            "total_tokens": int(embedded.tokens.sum()),
            "processing_time_ms": seconds * 1000,
        },
        "timestamp": datetime.now(UTC).isoformat(),
        "num_texts": len(texts),
    }
    return Response(as_json(answer), media_type="application/json", headers=cache_headers(embedded))


@router.post("/api/v1/rerank", response_model=ErRerankResponse, openapi_extra=shows_json(ErRerankRequest))
@router.post("/api/v1/rerank/", response_model=ErRerankResponse, openapi_extra=shows_json(ErRerankRequest))
@direct
async def rerank(request: Request) -> Response:
    """Sort passages by their relevance to a query."""
    body = await read_json(request, ErRerankRequest)
    return await take_steps(request, _rerank(body, services_of(request)))


def _rerank(request: ErRerankRequest, services: Services) -> Steps[Response]:
    started = time.perf_counter()
    check_query(request.query, services.settings)
    passages = [text_of(passage, i) for i, passage in enumerate(request.passages)]
    texts = texts_of(passages, services.settings, name="passages")
    ranked = yield from services.reranker.rank(request.model, request.query, texts)
    seconds, best = time.perf_counter() - started, best_first(ranked.scores)[: request.top_k]
    answer = ErRerankResponse(
        results=[
            ErRanked(text=texts[i] if request.return_documents else None, score=float(ranked.scores[i]), index=i)
            for i in best
        ],
        query=request.query,
        backend="semel",
        device=services.fleet.router.route(services.stores.catalog.space(ranked.model)).device,
        method=ranked.kind,
        processing_time=seconds,
        model_info=ranked.model,
        usage={
            "total_passages": len(texts),
            "returned_passages": len(best),
            "processing_time_ms": seconds * 1000,
        },
        timestamp=datetime.now(UTC).isoformat(),
        num_passages=len(texts),
    )
    return Response(answer.model_dump_json(), media_type="application/json", headers=cache_headers(*ranked.parts))
