"""POST /v1/embeddings, in OpenAI's shape."""

import base64
import json
from typing import Any

import numpy as np
from fastapi import APIRouter, Response

from semel.api.deps import ServicesDep
from semel.api.schemas import EmbeddingsRequest, EmbeddingsResponse
from semel.errors import (
    BackendError,
    BadInputError,
    InvalidTextError,
    InvalidVectorError,
    TextTooLongError,
    revive,
)
from semel.pipeline import cut_dimensions
from semel.values import Embedded, Outcome, Vectors

router = APIRouter(tags=["OpenAI"])

_FAULTS_OF_THE_TEXT = {InvalidTextError.code, TextTooLongError.code, InvalidVectorError.code, BackendError.code}
"""The model fails on this very text; other codes are ours to answer for."""


@router.post("/v1/embeddings", response_model=EmbeddingsResponse)
def create_embeddings(request: EmbeddingsRequest, services: ServicesDep) -> Response:
    """Vectors for a text or a list of texts: from the cache, or computed once."""
    texts = _texts(request.input, services.settings.max_request_texts)
    space = services.catalog.space(request.model, request.prompt_name)
    # Refuse a wrong size before anything is computed.
    cut_dimensions(np.ones((1, space.dim), np.float32), request.dimensions, space)
    embedded = services.pipeline.embed(space, texts, truncate=request.truncate)
    if embedded.errors:
        index, error = next(iter(embedded.errors.items()))
        if error.code in _FAULTS_OF_THE_TEXT:
            raise InvalidTextError(index, f"has no vector: {error.message}")
        raise revive(error.code, f"text {index} has no vector: {error.message}")
    vectors = cut_dimensions(embedded.vectors, request.dimensions, space)
    return Response(_body(request, embedded, vectors), media_type="application/json", headers=_headers(embedded))


def _texts(given: Any, limit: int) -> list[str]:
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list):
        raise BadInputError(f"input must be a text or a list of texts, not {type(given).__name__}")
    if not texts:
        raise BadInputError("input is an empty list; send at least one text")
    if len(texts) > limit:
        raise BadInputError(
            f"input has {len(texts)} texts, the limit of one request is {limit}; send a job: POST /v1/jobs"
        )
    if all(isinstance(item, int | list) for item in texts):
        raise BadInputError(
            "input holds token ids; semel's key is over the text, so send strings "
            "(LangChain: OpenAIEmbeddings(check_embedding_ctx_length=False))"
        )
    return texts


def _body(request: EmbeddingsRequest, embedded: Embedded, vectors: Vectors) -> bytes:
    """Built by hand: pydantic would walk every number."""
    if request.encoding_format == "base64":
        encoded: list[Any] = [base64.b64encode(row.tobytes()).decode() for row in vectors.astype("<f4")]
    else:
        encoded = vectors.tolist()
    tokens = int(embedded.tokens.sum())
    return json.dumps(
        {
            "object": "list",
            "data": [{"object": "embedding", "index": i, "embedding": e} for i, e in enumerate(encoded)],
            "model": request.model,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }
    ).encode()


def _headers(embedded: Embedded) -> dict[str, str]:
    counts = "; ".join(f"{o.value}={embedded.count(o)}" for o in (Outcome.HIT, Outcome.COMPUTED, Outcome.COALESCED))
    return {"x-semel-cache": counts, "x-semel-truncated": str(int(embedded.truncated.sum()))}
