"""/embed, /rerank, /similarity, /tokenize, /info and /health as Text Embeddings Inference (TEI) defines them."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TypeAlias

from fastapi import Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel

from semel import __version__
from semel.api.deps import ServicesDep, services_of
from semel.api.dialects.classify import Prediction, TeiPredictRequest
from semel.api.dialects.cohere import RerankRequest, RerankResponse, check_query
from semel.api.dialects.embedding import cache_headers, embed_all, texts_of
from semel.api.dialects.tei import (
    SparseEntry,
    TeiEmbedRequest,
    TeiParameters,
    TeiRank,
    TeiRerankRequest,
    TeiSimilarityRequest,
    TeiSparseRequest,
    TeiToken,
    TeiTokenizeRequest,
    variant_of,
)
from semel.api.edge.access import may_see_details
from semel.api.edge.as_json import as_json
from semel.api.edge.connections import MAX_CONNECTIONS
from semel.api.edge.keys import Scope
from semel.api.edge.reading import read_either, read_json, shows_json
from semel.api.edge.traits import DialectRouter, direct, needs, public, untraced
from semel.api.edge.waiting import reading_texts, take_steps
from semel.api.routes.predict import predictions
from semel.api.routes.rerank import rerank_documents
from semel.api.routes.sparse import sparse_vectors
from semel.api.services import Services
from semel.cache.keys import check_text
from semel.errors import BadInputError, InvalidTextError, SemelError, UnavailableError
from semel.rerank import best_first
from semel.steps import Steps
from semel.values.model import Kind, Space
from semel.values.vectors import cosines, unit_rows

router = DialectRouter(dialect="tei", tags=["Text Embeddings Inference"], needs=Scope.SUBMIT)


@router.post("/embed", response_model=list[list[float]], openapi_extra=shows_json(TeiEmbedRequest))
@direct
async def embed(request: Request) -> Response:
    """Embed a text or a list of texts, in order."""
    body = await read_json(request, TeiEmbedRequest)
    return await take_steps(request, _embed(body, services_of(request)))


_Steps: TypeAlias = Callable[[Any, Services], Steps[Response]]


@router.post(
    "/",
    response_model=list[list[float]] | list[list[SparseEntry]] | list[TeiRank] | list[Prediction],
    openapi_extra=shows_json(TeiEmbedRequest),
)
@direct
async def default_model(request: Request) -> Response:
    """Do what the default model does: as /embed, /embed_sparse, /rerank or /predict."""
    services = services_of(request)
    space = await run_in_threadpool(services.stores.catalog.space)
    reads: dict[Kind, tuple[type[BaseModel], _Steps]] = {
        "embed": (TeiEmbedRequest, _embed),
        "sparse": (TeiSparseRequest, sparse_vectors),
        "cross-encoder": (TeiRerankRequest, _rerank),
        "classifier": (TeiPredictRequest, predictions),
    }
    model, steps = reads[space.kind]
    return await take_steps(request, steps(await read_json(request, model), services))


def _embed(request: TeiEmbedRequest, services: Services) -> Steps[Response]:
    space = services.stores.catalog.space(prompt_name=request.prompt_name or "")
    space.check_kind("embed")
    space = space.with_variant(
        variant_of(request.truncation_direction, normalize=False if not request.normalize else None)
    )
    texts = texts_of(request.inputs, services.settings, name="inputs")
    embedded, vectors = yield from embed_all(
        services, space, texts, truncate=bool(request.truncate), dimensions=request.dimensions
    )
    if request.normalize and not space.normalizes:
        vectors = unit_rows(vectors)
    return Response(as_json(vectors), media_type="application/json", headers=cache_headers(embedded))


@router.post("/rerank", response_model=list[TeiRank] | RerankResponse, openapi_extra=shows_json(TeiRerankRequest))
@direct
async def rerank(request: Request) -> Response:
    """Score texts by their relevance to a query, the best first; `documents` instead of `texts` is as in /v1/rerank."""
    body = await read_either(request, _rerank_model)
    services = services_of(request)
    if isinstance(body, RerankRequest):
        return await take_steps(request, rerank_documents(body, services))
    return await take_steps(request, _rerank(body, services))


def _rerank_model(given: Any) -> type[RerankRequest] | type[TeiRerankRequest]:
    return RerankRequest if isinstance(given, dict) and "documents" in given else TeiRerankRequest


def _rerank(request: TeiRerankRequest, services: Services) -> Steps[Response]:
    texts = texts_of(request.texts, services.settings, name="texts")
    check_query(request.query, services.settings)
    ranked = yield from services.reranker.rank(
        None,
        request.query,
        texts,
        truncate=bool(request.truncate),
        variant=variant_of(request.truncation_direction),
        raw=request.raw_scores,
    )
    best = [
        {"index": i, "score": ranked.scores[i], **({"text": texts[i]} if request.return_text else {})}
        for i in best_first(ranked.scores)
    ]
    return Response(as_json(best), media_type="application/json", headers=cache_headers(*ranked.parts))


@router.post("/similarity")
async def similarity(request: Request, body: TeiSimilarityRequest, response: Response) -> list[float]:
    """Return the cosine of each sentence with the source sentence, in the order of the sentences."""
    return await take_steps(request, _similarity(body, services_of(request), response))


def _similarity(request: TeiSimilarityRequest, services: Services, response: Response) -> Steps[list[float]]:
    sentences = texts_of(request.inputs.sentences, services.settings, name="sentences")
    parameters = request.parameters or TeiParameters()
    space = services.stores.catalog.space(prompt_name=parameters.prompt_name or "")
    space = space.with_variant(variant_of(parameters.truncation_direction))
    truncate = bool(parameters.truncate)
    embedded, vectors = yield from embed_all(services, space, sentences, truncate=truncate)
    try:
        source = texts_of(request.inputs.source_sentence, services.settings)
        embedded_source, source_vectors = yield from embed_all(services, space, source, truncate=truncate)
    except InvalidTextError as error:
        raise BadInputError(f"source_sentence {error.why}") from None
    response.headers.update(cache_headers(embedded_source, embedded))
    similarities: list[float] = cosines(source_vectors[0], vectors).tolist()
    return similarities


_MOST_SPELLED = 256 << 10
"""Characters in one request of /tokenize: each token of the answer is an object, which is larger than its text."""


@router.post("/tokenize")
async def tokenize(request: TeiTokenizeRequest, services: ServicesDep) -> list[list[TeiToken]]:
    """Return the tokens of each text, as the model reads it."""
    return await reading_texts(lambda: _tokenize(request, services))


def _tokenize(request: TeiTokenizeRequest, services: Services) -> list[list[TeiToken]]:
    texts = texts_of(request.inputs, services.settings, name="inputs")
    space = services.stores.catalog.space(prompt_name=request.prompt_name or "")
    for index, text in enumerate(texts):
        check_text(text, index)
    if sum(map(len, texts)) > _MOST_SPELLED:
        raise BadInputError(f"inputs has more than {_MOST_SPELLED} characters in all; send fewer texts at a time")
    spelled = services.fleet.sender.spell(space, texts, special=request.add_special_tokens)
    return [[TeiToken(**token) for token in tokens] for tokens in spelled]


@router.get("/info")
@needs(Scope.READ)
def info(services: ServicesDep) -> dict[str, Any]:
    """Describe the default model. The answer is 404 until a worker has served it."""
    space = services.stores.catalog.space()
    live = services.fleet.roster.recently_live()
    settings, workers = services.settings, [card for card in live if space.model in card.models]
    return {
        "model_id": space.model,
        "served_model_name": space.model,
        "model_sha": space.weights,
        "model_dtype": ", ".join(sorted({card.dtype for card in workers if card.dtype})) or "no worker is live",
        "model_type": _type_of(space),
        "max_concurrent_requests": MAX_CONNECTIONS,
        "max_input_length": space.max_tokens,
        "max_batch_tokens": settings.max_batch_tokens or settings.max_request_texts * space.max_tokens,
        "max_batch_requests": None,
        "max_client_batch_size": settings.max_request_texts,
        "tokenization_workers": len(workers),
        "auto_truncate": False,
        "version": __version__,
    }


def _type_of(space: Space) -> dict[str, Any]:
    if space.kind in ("cross-encoder", "classifier"):
        labels = dict(enumerate(space.head.labels or ("LABEL_0",)))
        ids = {"id2label": {str(i): label for i, label in labels.items()}}
        named = {**ids, "label2id": {label: i for i, label in labels.items()}}
        return {"reranker" if space.kind == "cross-encoder" else "classifier": named}
    if space.kind == "sparse":
        return {"embedding": {"pooling": "splade"}}
    return {"embedding": {"pooling": _pooling_of(space)}}


def _pooling_of(space: Space) -> str:
    """TEI's name for how a model's tokens become a vector."""
    named = {"cls": ("cls", "cls_token"), "mean": ("mean", "mean_tokens"), "last_token": ("lasttoken", "lasttoken")}
    rule = space.spec.pooling
    for name, (mode, older) in named.items():
        if f'"pooling_mode":"{mode}"' in rule or f'"pooling_mode_{older}":true' in rule:
            return name
    return rule


@router.get("/health/", include_in_schema=False)
@router.get("/health", responses={503: {"description": "A part does not answer; the message names it."}})
@public
@untraced
def health(request: Request, services: ServicesDep) -> dict[str, Any]:
    """Return 200 if every part answers. /health/ready reports each part.

    TEI's clients look at the status only; the fields are those that embed-rerank's monitors read.
    """
    try:
        for ping in services.pings.values():
            ping()
    except SemelError:
        if may_see_details(request):
            raise
        raise UnavailableError("a part of the server does not answer") from None
    backend = {"name": "semel", "status": "healthy", "model_name": services.settings.default_model}
    return {"status": "healthy", "timestamp": datetime.now(UTC).isoformat(), "backend": backend}
