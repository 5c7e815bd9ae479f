"""GET /v1/models."""

from collections.abc import Sequence

from semel.api.deps import ServicesDep
from semel.api.dialects.openai import ModelList, ModelObject
from semel.api.edge.keys import Scope
from semel.api.edge.traits import DialectRouter
from semel.tasks.fleet.card import WorkerCard
from semel.values.model import Space

router = DialectRouter(tags=["OpenAI"], needs=Scope.READ)


@router.get("/v1/models", response_model=ModelList)
def list_models(services: ServicesDep) -> ModelList:
    """List every model that a worker has served; `live` means that a worker serves it now."""
    published = services.stores.catalog.all()
    workers = services.fleet.roster.live()  # not a kept copy: the page asks right after a change
    plain = [(space, seen_at) for space, seen_at in published if not space.prompt_name]
    default = services.settings.default_model
    return ModelList(data=[_model(space, seen_at, published, workers, default=default) for space, seen_at in plain])


def _model(
    space: Space,
    seen_at: float,
    published: list[tuple[Space, float]],
    workers: Sequence[WorkerCard],
    *,
    default: str,
) -> ModelObject:
    return ModelObject(
        id=space.model,
        created=int(seen_at),
        dimensions=space.dim,
        max_tokens=space.max_tokens,
        prompts=[s.prompt_name for s, _ in published if s.model == space.model and s.prompt_name],
        fingerprint=space.fingerprint.hex(),
        live=any(space.model in card.models for card in workers),
        default=space.model == default,
    )
