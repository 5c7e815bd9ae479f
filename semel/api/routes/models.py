"""GET /v1/models and /v1/models/{model}."""

from collections.abc import Sequence

from semel.api.deps import ServicesDep
from semel.api.dialects.openai import ModelList, ModelObject
from semel.api.edge.keys import Scope
from semel.api.edge.traits import DialectRouter
from semel.api.services import Services
from semel.tasks.fleet.card import WorkerCard
from semel.values.model import Space

router = DialectRouter(tags=["OpenAI"], needs=Scope.READ)


@router.get("/models", response_model=ModelList)
@router.get("/v1/models", response_model=ModelList)
def list_models(services: ServicesDep) -> ModelList:
    """List every model that a worker has served, the default first; `live` means that a worker serves it now."""
    return ModelList(data=_models(services))


@router.get("/v1/models/{model:path}", response_model=ModelObject)
def get_model(model: str, services: ServicesDep) -> ModelObject:
    """Return one model; its name may contain slashes."""
    name = services.stores.catalog.space(model).model
    return next(each for each in _models(services) if each.id == name)


def _models(services: Services) -> list[ModelObject]:
    published = services.stores.catalog.all()
    workers = services.watch.roster.live()  # not a kept copy: the page asks right after a change
    plain = [(space, seen_at) for space, seen_at in published if not space.prompt_name]
    default = services.settings.default_model
    models = [_model(space, seen_at, published, workers, default=default) for space, seen_at in plain]
    return sorted(models, key=lambda each: not each.default)


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
        kind=space.kind,
        dimensions=space.dim,
        max_tokens=space.max_tokens,
        prompts=[s.prompt_name for s, _ in published if s.model == space.model and s.prompt_name],
        fingerprint=space.fingerprint.hex(),
        fingerprints={s.prompt_name: s.fingerprint.hex() for s, _ in published if s.model == space.model},
        live=any(space.model in card.models for card in workers),
        default=space.model == default,
    )
