"""/classify as vLLM defines it."""

from fastapi import Request, Response

from semel.api.deps import services_of
from semel.api.dialects.classify import ClassifyRequest, ClassifyResponse, classify_body, label_scores
from semel.api.dialects.embedding import cache_headers, texts_of
from semel.api.edge.keys import Scope
from semel.api.edge.reading import read_json, shows_json
from semel.api.edge.traits import DialectRouter, direct
from semel.api.edge.waiting import take_steps
from semel.api.services import Services
from semel.steps import Steps

router = DialectRouter(tags=["vLLM"], needs=Scope.SUBMIT)


@router.post("/classify", response_model=ClassifyResponse, openapi_extra=shows_json(ClassifyRequest))
@direct
async def classify(request: Request) -> Response:
    """Return the label of each text, with the scores of all labels."""
    body = await read_json(request, ClassifyRequest)
    return await take_steps(request, _classify(body, services_of(request)))


def _classify(request: ClassifyRequest, services: Services) -> Steps[Response]:
    space = services.stores.catalog.space_of_kind("classifier", request.model).with_variant(request.variant)
    texts = texts_of(request.input, services.settings)
    embedded, scores = yield from label_scores(services, space, texts, raw=request.use_activation is False)
    tokens = int(embedded.tokens.sum())
    answer = classify_body(space, scores, tokens=tokens)
    return Response(answer.model_dump_json(), media_type="application/json", headers=cache_headers(embedded))
