"""/api/embed, /api/embeddings, /api/tags, /api/show and /api/version as Ollama defines them."""

import time
from datetime import UTC, datetime

from fastapi import Request, Response

from semel import __version__
from semel.api.deps import ServicesDep, services_of
from semel.api.dialects.embedding import cache_headers, embed_all, texts_of
from semel.api.dialects.ollama import (
    OllamaEmbedRequest,
    OllamaEmbedResponse,
    OllamaModel,
    OllamaOldRequest,
    OllamaOldResponse,
    OllamaRequest,
    OllamaShown,
    OllamaShowRequest,
    OllamaTags,
    OllamaVersion,
    details_of,
    with_tag,
    without_tag,
)
from semel.api.edge.as_json import as_json
from semel.api.edge.keys import Scope
from semel.api.edge.reading import read_json, shows_json
from semel.api.edge.traits import DialectRouter, direct, needs
from semel.api.edge.waiting import take_steps
from semel.api.services import Services
from semel.errors import BadInputError
from semel.steps import Steps
from semel.values.model import Space

router = DialectRouter(dialect="ollama", tags=["Ollama"], needs=Scope.SUBMIT)


@router.post("/api/embed", response_model=OllamaEmbedResponse, openapi_extra=shows_json(OllamaEmbedRequest))
@direct
async def embed(request: Request) -> Response:
    """Embed a text or a list of texts, in order."""
    body = await read_json(request, OllamaEmbedRequest)
    return await take_steps(request, _embed(body, services_of(request)))


def _embed(request: OllamaEmbedRequest, services: Services) -> Steps[Response]:
    started = time.perf_counter_ns()
    space = _space(services, request)
    texts = texts_of(request.input, services.settings)
    embedded, vectors = yield from embed_all(
        services, space, texts, truncate=request.truncate is not False, dimensions=request.dimensions
    )
    answer = {
        "model": request.model,
        "embeddings": list(vectors),
        "total_duration": time.perf_counter_ns() - started,
        "prompt_eval_count": int(embedded.tokens.sum()),
    }
    return Response(as_json(answer), media_type="application/json", headers=cache_headers(embedded))


@router.post("/api/embeddings", response_model=OllamaOldResponse, openapi_extra=shows_json(OllamaOldRequest))
@direct
async def embed_one(request: Request) -> Response:
    """Embed one text."""
    body = await read_json(request, OllamaOldRequest)
    return await take_steps(request, _embed_one(body, services_of(request)))


def _embed_one(request: OllamaOldRequest, services: Services) -> Steps[Response]:
    space = _space(services, request)
    embedded, vectors = yield from embed_all(
        services, space, texts_of(request.prompt, services.settings, name="prompt")
    )
    answer = {"embedding": vectors[0]}
    return Response(as_json(answer), media_type="application/json", headers=cache_headers(embedded))


def _space(services: Services, request: OllamaRequest) -> Space:
    return request.space(services.stores.catalog.space(without_tag(request.model)))


@router.get("/api/tags", response_model=OllamaTags)
@needs(Scope.READ)
def list_models(services: ServicesDep) -> OllamaTags:
    """List every model that a worker has served."""
    published = [(space, seen_at) for space, seen_at in services.stores.catalog.all() if not space.prompt_name]
    return OllamaTags(models=[_listed(space, seen_at) for space, seen_at in published])


def _listed(space: Space, seen_at: float) -> OllamaModel:
    name = with_tag(space.model)
    return OllamaModel(
        name=name,
        model=name,
        modified_at=datetime.fromtimestamp(seen_at, UTC).isoformat(),
        digest=space.fingerprint.hex(),
        details=details_of(space),
    )


@router.post("/api/show", response_model=OllamaShown)
@needs(Scope.READ)
def show_model(request: OllamaShowRequest, services: ServicesDep) -> OllamaShown:
    """Return what is known about a model."""
    name = request.model or request.name
    if not name:
        raise BadInputError("model: send the name of a model")
    space = services.stores.catalog.space(without_tag(name))
    details = details_of(space)
    return OllamaShown(
        details=details,
        model_info={
            "general.architecture": details.family,
            f"{details.family}.context_length": space.max_tokens,
            f"{details.family}.embedding_length": space.dim,
        },
        capabilities=["embedding"] if space.kind == "embed" else [],
    )


@router.get("/api/version", response_model=OllamaVersion)
@needs(Scope.READ)
async def version() -> OllamaVersion:
    """Return the version of semel."""
    return OllamaVersion(version=__version__)
