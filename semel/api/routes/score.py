"""POST /score and /v1/score as vLLM defines them."""

import time
import uuid

from fastapi import Request, Response

from semel.api.deps import services_of
from semel.api.dialects.embedding import cache_headers
from semel.api.dialects.score import Score, ScoreRequest, ScoreResponse
from semel.api.edge.keys import Scope
from semel.api.edge.reading import read_json, shows_json
from semel.api.edge.traits import DialectRouter, direct
from semel.api.edge.waiting import take_steps
from semel.api.services import Services
from semel.steps import Steps

router = DialectRouter(tags=["vLLM"], needs=Scope.SUBMIT)


@router.post("/score", response_model=ScoreResponse, openapi_extra=shows_json(ScoreRequest))
@router.post("/v1/score", response_model=ScoreResponse, openapi_extra=shows_json(ScoreRequest))
@direct
async def score(request: Request) -> Response:
    """Score pairs of texts with a cross-encoder, or by the cosine of their vectors."""
    body = await read_json(request, ScoreRequest)
    return await take_steps(request, _score(body, services_of(request)))


def _score(request: ScoreRequest, services: Services) -> Steps[Response]:
    pairs = request.pairs(services.settings)
    ranked = yield from services.reranker.score(
        request.model, pairs, variant=request.variant, raw=request.use_activation is False
    )
    answer = ScoreResponse(
        id=f"score-{uuid.uuid4().hex}",
        created=int(time.time()),
        model=ranked.model,
        data=[Score(index=i, score=float(value)) for i, value in enumerate(ranked.scores)],
        usage={"prompt_tokens": ranked.tokens, "total_tokens": ranked.tokens},
        kind=ranked.kind,
    )
    return Response(answer.model_dump_json(), media_type="application/json", headers=cache_headers(*ranked.parts))
