"""/predict as Text Embeddings Inference (TEI) defines it."""

from fastapi import Request, Response

from semel.api.deps import services_of
from semel.api.dialects.classify import Prediction, TeiPredictRequest, label_scores
from semel.api.dialects.embedding import cache_headers
from semel.api.dialects.tei import variant_of
from semel.api.edge.as_json import as_json
from semel.api.edge.keys import Scope
from semel.api.edge.reading import read_json, shows_json
from semel.api.edge.traits import DialectRouter, direct
from semel.api.edge.waiting import take_steps
from semel.api.services import Services
from semel.steps import Steps

router = DialectRouter(dialect="tei", tags=["Text Embeddings Inference"], needs=Scope.SUBMIT)


@router.post(
    "/predict",
    response_model=list[Prediction] | list[list[Prediction]],
    openapi_extra=shows_json(TeiPredictRequest),
)
@direct
async def predict(request: Request) -> Response:
    """Score the labels of a classifier for a text, a pair or a list of them; the best label comes first."""
    body = await read_json(request, TeiPredictRequest)
    return await take_steps(request, predictions(body, services_of(request)))


def predictions(request: TeiPredictRequest, services: Services) -> Steps[Response]:
    """The answer of /predict. Raises BadInputError, InvalidTextError, and what the pipeline raises."""
    space = services.stores.catalog.space_of_kind("classifier", request.model)
    space = space.with_variant(variant_of(request.truncation_direction))
    items = request.items(services.settings)
    embedded, scores = yield from label_scores(
        services, space, items, truncate=bool(request.truncate), raw=request.raw_scores
    )
    ranked = [
        sorted(
            ({"label": label, "score": score} for label, score in zip(space.head.labels, row, strict=True)),
            key=lambda each: -each["score"],
        )
        for row in scores
    ]
    answer = ranked[0] if request.is_single else ranked
    return Response(as_json(answer), media_type="application/json", headers=cache_headers(embedded))
