"""/embed, /rerank, /similarity, /tokenize, /info and /health as Text Embeddings Inference (TEI) defines them."""

import json
from typing import Any

from fastapi import Request, Response

from semel import __version__
from semel.api.deps import ServicesDep, services_of
from semel.api.dialects.cohere import check_query
from semel.api.dialects.embedding import cache_headers, embed_all, texts_of
from semel.api.dialects.tei import (
    TeiEmbedRequest,
    TeiRank,
    TeiRerankRequest,
    TeiSimilarityRequest,
    TeiToken,
    TeiTokenizeRequest,
)
from semel.api.edge.access import may_see_details
from semel.api.edge.as_json import as_json
from semel.api.edge.keys import Scope
from semel.api.edge.reading import read_json, shows_json
from semel.api.edge.traits import DialectRouter, direct, needs, public, untraced
from semel.api.edge.waiting import reading_texts, take_steps
from semel.api.services import Services
from semel.cache.keys import check_text
from semel.errors import BadInputError, InvalidTextError, SemelError, UnavailableError
from semel.rerank import best_first
from semel.steps import Steps
from semel.values.vectors import cosines, unit_rows

router = DialectRouter(dialect="tei", tags=["Text Embeddings Inference"], needs=Scope.SUBMIT)


@router.post("/", response_model=list[list[float]], openapi_extra=shows_json(TeiEmbedRequest))
@router.post("/embed", response_model=list[list[float]], openapi_extra=shows_json(TeiEmbedRequest))
@direct
async def embed(request: Request) -> Response:
    """Embed a text or a list of texts, in order."""
    body = await read_json(request, TeiEmbedRequest)
    return await take_steps(request, _embed(body, services_of(request)))


def _embed(request: TeiEmbedRequest, services: Services) -> Steps[Response]:
    space = services.stores.catalog.space(prompt_name=request.prompt_name or "")
    normalized = json.loads(space.spec_json)["normalize"]
    if normalized and not request.normalize:
        raise BadInputError(f"normalize false is not supported: {space.model!r} itself scales vectors to length 1")
    texts = texts_of(request.inputs, services.settings, name="inputs")
    embedded, vectors = yield from embed_all(
        services, space, texts, truncate=bool(request.truncate), dimensions=request.dimensions
    )
    if request.normalize and not normalized:
        vectors = unit_rows(vectors)
    return Response(as_json(vectors), media_type="application/json", headers=cache_headers(embedded))


@router.post(
    "/rerank",
    response_model=list[TeiRank],
    response_model_exclude_none=True,
)
async def rerank(request: Request, body: TeiRerankRequest, response: Response) -> list[TeiRank]:
    """Score texts by their relevance to a query, the best first."""
    return await take_steps(request, _rerank(body, services_of(request), response))


def _rerank(request: TeiRerankRequest, services: Services, response: Response) -> Steps[list[TeiRank]]:
    texts = texts_of(request.texts, services.settings, name="texts")
    check_query(request.query, services.settings)
    ranked = yield from services.reranker.rank(None, request.query, texts, truncate=bool(request.truncate))
    response.headers.update(cache_headers(*ranked.parts))
    return [
        TeiRank(index=i, score=float(ranked.scores[i]), text=texts[i] if request.return_text else None)
        for i in best_first(ranked.scores)
    ]


@router.post("/similarity")
async def similarity(request: Request, body: TeiSimilarityRequest, response: Response) -> list[float]:
    """Return the cosine of each sentence with the source sentence, in the order of the sentences."""
    return await take_steps(request, _similarity(body, services_of(request), response))


def _similarity(request: TeiSimilarityRequest, services: Services, response: Response) -> Steps[list[float]]:
    sentences = texts_of(request.inputs.sentences, services.settings, name="sentences")
    space = services.stores.catalog.space(prompt_name=request.parameters.prompt_name or "")
    truncate = bool(request.parameters.truncate)
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
    spec = json.loads(space.spec_json)
    dtypes = {card.dtype for card in services.fleet.roster.recently_live() if space.model in card.models and card.dtype}
    return {
        "model_id": space.model,
        "model_sha": spec["weights"],
        "model_dtype": ", ".join(sorted(dtypes)) or "no worker is live",
        "model_type": {"embedding": {"pooling": spec["pooling"]}},
        "max_input_length": space.max_tokens,
        "max_client_batch_size": services.settings.max_request_texts,
        "auto_truncate": False,
        "version": __version__,
    }


@router.get("/health", responses={503: {"description": "A part does not answer; the message names it."}})
@public
@untraced
def health(request: Request, services: ServicesDep) -> dict[str, str]:
    """Return 200 if every part answers. /health/ready reports each part."""
    try:
        for ping in services.pings.values():
            ping()
    except SemelError:
        if may_see_details(request):
            raise
        raise UnavailableError("a part of the server does not answer") from None
    return {}
