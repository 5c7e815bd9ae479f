"""Cohere's and Jina's request and answer in one, for the route and for the lines of batches."""

import uuid
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from semel.api.dialects.embedding import texts_of, too_large
from semel.api.dialects.openai import ModelName
from semel.errors import BadInputError
from semel.rerank import RerankKind, Scores, best_first
from semel.settings import Settings


class RerankRequest(BaseModel):
    """Cohere's and Jina's request."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "model": "minilm",
                "query": "how do I parse a JSON string?",
                "documents": ["Deserialize a str that holds a JSON document.", "Sort a list in place."],
                "top_n": 1,
            }
        }
    )

    query: str
    documents: list[str | dict[str, Any]] = Field(description='Texts, or objects with the text in "text".')
    model: ModelName = None
    top_n: int | None = Field(default=None, ge=1, description="How many to return; all of them when left out.")
    return_documents: bool = False


class RankedDocument(BaseModel):
    text: str


class RerankResult(BaseModel):
    index: int
    relevance_score: float
    document: RankedDocument | None = None


class RerankResponse(BaseModel):
    """The documents, the best first. `meta.kind` says how the scores came about."""

    id: str
    model: str
    results: list[RerankResult]
    meta: dict[str, Any]
    usage: dict[str, int]


def documents_of(request: RerankRequest, settings: Settings) -> list[str]:
    """The texts of a request's documents. Raises BadInputError, InvalidTextError."""
    check_query(request.query, settings)
    texts = [_text_of(document, i) for i, document in enumerate(request.documents)]
    return texts_of(texts, settings, name="documents")


def check_query(query: str, settings: Settings) -> None:
    """Raises BadInputError when it is too long."""
    if len(query) > settings.max_text_bytes:
        raise BadInputError(f"the query {too_large(settings)}")


def rerank_body(
    request: RerankRequest, documents: list[str], scores: Scores, *, model: str, kind: RerankKind, tokens: int
) -> RerankResponse:
    """Cohere's and Jina's answer."""
    return RerankResponse(
        id=str(uuid.uuid4()),
        model=model,
        results=[
            RerankResult(
                index=i,
                relevance_score=float(scores[i]),
                document=RankedDocument(text=documents[i]) if request.return_documents else None,
            )
            for i in best_first(scores)[: request.top_n]
        ],
        meta={
            "api_version": {"version": "2"},
            "billed_units": {"search_units": 1},
            "tokens": {"input_tokens": tokens},
            "kind": kind,
        },
        usage={"total_tokens": tokens},
    )


def _text_of(document: str | dict[str, Any], index: int) -> str:
    text = document.get("text") if isinstance(document, dict) else document
    if not isinstance(text, str):
        raise BadInputError(f'document {index} has no string in "text"; send texts, or objects with that field')
    return text
