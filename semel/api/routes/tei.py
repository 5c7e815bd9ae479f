"""/embed, /rerank, /similarity, /tokenize, /info, /health: as Text Embeddings Inference has them."""

import json
from typing import Any

from fastapi import Response

from semel import __version__
from semel.api.deps import ServicesDep
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
from semel.api.edge.access import MAY_READ, MAY_SUBMIT
from semel.api.edge.as_json import as_json
from semel.api.edge.traits import DialectRouter, untraced
from semel.cache.keys import check_text
from semel.errors import BadInputError, InvalidTextError
from semel.rerank import best_first
from semel.values.vectors import cosines, unit_rows

router = DialectRouter(dialect="tei", tags=["Text Embeddings Inference"])


@router.post("/", response_model=list[list[float]], dependencies=MAY_SUBMIT)
@router.post("/embed", response_model=list[list[float]], dependencies=MAY_SUBMIT)
def embed(request: TeiEmbedRequest, services: ServicesDep) -> Response:
    """Vectors for a text or a list of texts, in order."""
    space = services.stores.catalog.space(prompt_name=request.prompt_name or "")
    normalized = json.loads(space.spec_json)["normalize"]
    if normalized and not request.normalize:
        raise BadInputError(f"normalize false is not offered: {space.model!r} scales its own vectors to length 1")
    texts = texts_of(request.inputs, services.settings, name="inputs")
    embedded, vectors = embed_all(
        services, space, texts, truncate=bool(request.truncate), dimensions=request.dimensions
    )
    if request.normalize and not normalized:
        vectors = unit_rows(vectors)
    return Response(as_json(vectors), media_type="application/json", headers=cache_headers(embedded))


@router.post(
    "/rerank",
    response_model=list[TeiRank],
    response_model_exclude_none=True,
    dependencies=MAY_SUBMIT,
)
def rerank(request: TeiRerankRequest, services: ServicesDep, response: Response) -> list[TeiRank]:
    """Scores for texts, the best first."""
    texts = texts_of(request.texts, services.settings, name="texts")
    check_query(request.query, services.settings)
    ranked = services.reranker.rank(None, request.query, texts, truncate=bool(request.truncate))
    response.headers.update(cache_headers(*ranked.parts))
    return [
        TeiRank(index=i, score=float(ranked.scores[i]), text=texts[i] if request.return_text else None)
        for i in best_first(ranked.scores)
    ]


@router.post("/similarity", dependencies=MAY_SUBMIT)
def similarity(request: TeiSimilarityRequest, services: ServicesDep, response: Response) -> list[float]:
    """Cosine of each sentence with the source sentence, in the order of the sentences."""
    sentences = texts_of(request.inputs.sentences, services.settings, name="sentences")
    space = services.stores.catalog.space(prompt_name=request.parameters.prompt_name or "")
    truncate = bool(request.parameters.truncate)
    found, vectors = embed_all(services, space, sentences, truncate=truncate)
    try:
        asked_for = texts_of(request.inputs.source_sentence, services.settings)
        asked, source = embed_all(services, space, asked_for, truncate=truncate)
    except InvalidTextError as error:
        raise BadInputError(f"source_sentence {error.why}") from None
    response.headers.update(cache_headers(asked, found))
    similarities: list[float] = cosines(source[0], vectors).tolist()
    return similarities


@router.post("/tokenize", dependencies=MAY_SUBMIT)
def tokenize(request: TeiTokenizeRequest, services: ServicesDep) -> list[list[TeiToken]]:
    """How the model reads each text, token by token."""
    texts = texts_of(request.inputs, services.settings, name="inputs")
    space = services.stores.catalog.space(prompt_name=request.prompt_name or "")
    for index, text in enumerate(texts):
        check_text(text, index)
    spelled = services.fleet.sender.spell(space, texts, special=request.add_special_tokens)
    return [[TeiToken(**token) for token in tokens] for tokens in spelled]


@router.get("/info", dependencies=MAY_READ)
def info(services: ServicesDep) -> dict[str, Any]:
    """What runs here. Raises UnknownModelError before a worker has served the default model."""
    space = services.stores.catalog.space()
    spec = json.loads(space.spec_json)
    dtypes = {card.dtype for card in services.fleet.roster.live_lately() if space.model in card.models and card.dtype}
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
@untraced
def health(services: ServicesDep) -> dict[str, str]:
    """200 when everything answers; /health/ready tells the parts apart."""
    for ping in services.pings.values():
        ping()
    return {}
