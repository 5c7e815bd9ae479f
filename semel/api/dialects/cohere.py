"""Requests and answers as Cohere and Jina define them, for the routes and for the lines of batches."""

import uuid
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, FailFast, Field, model_validator

from semel.api.dialects.embedding import texts_of, too_large
from semel.api.dialects.openai import ModelName
from semel.api.dialects.strict import StrictRequest
from semel.cache.catalog import InputType
from semel.errors import BadInputError
from semel.rerank import RerankKind, Scores, best_first
from semel.settings import Settings
from semel.values.variant import Variant


class RerankRequest(StrictRequest):
    """Cohere's and Jina's request to rerank documents."""

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
    documents: Annotated[list[str | dict[str, Any]], FailFast()] = Field(
        description='Texts, or objects with the text in "text", or in `rank_fields`.'
    )
    model: ModelName = None
    top_n: int | None = Field(default=None, ge=1, description="How many documents to return; all of them without it.")
    return_documents: bool = False
    rank_fields: list[str] | None = Field(
        default=None,
        min_length=1,
        max_length=64,
        description="Cohere v1: fields whose values, joined by newlines, are scored.",
    )
    max_tokens_per_doc: int | None = Field(
        default=None, ge=1, le=1 << 31, description="Cohere v2: cut documents after this many tokens of their own."
    )
    raw_scores: bool = Field(default=False, description="infinity: return a cross-encoder's logits.")
    use_activation: bool | None = Field(default=None, description="vLLM: false returns a cross-encoder's logits.")
    top_k: int | None = Field(default=None, ge=1, description="Voyage: `top_n`; the answer then has `data`, too.")
    truncation: bool | None = Field(
        default=None,
        description="Voyage: false refuses documents that are too long; the answer then has `data`, too.",
    )

    @property
    def variant(self) -> Variant:
        """How the pairs are read."""
        return Variant(document_tokens=self.max_tokens_per_doc)

    @property
    def truncate(self) -> bool:
        """Whether pairs above the model's limit are cut."""
        return self.truncation is not False

    @property
    def raw(self) -> bool:
        """Whether a cross-encoder's logits are wanted."""
        return self.raw_scores or self.use_activation is False

    @property
    def most(self) -> int | None:
        """How many documents to return; None for all."""
        return self.top_n or self.top_k

    @property
    def is_voyages(self) -> bool:
        """Whether it has a field that only Voyage's clients send."""
        return not self.model_fields_set.isdisjoint(("top_k", "truncation"))

    @model_validator(mode="after")
    def _check_names(self) -> "RerankRequest":
        """Raises ValueError if two names of one parameter disagree."""
        if self.top_n and self.top_k and self.top_n != self.top_k:
            raise ValueError("top_n and top_k are two names of one parameter, and have different values here")
        if self.raw_scores and self.use_activation:
            raise ValueError("raw_scores and use_activation contradict each other")
        return self


class RankedDocument(BaseModel):
    """The text of a document, and the other fields that it was sent with."""

    model_config = ConfigDict(extra="allow")

    text: str | None = None


class RerankResult(BaseModel):
    """The score of the document at position `index` of the request, from 0."""

    index: int
    relevance_score: float
    document: RankedDocument | str | None = None


class RerankResponse(BaseModel):
    """The documents, the best first. `meta.kind` names the kind of the scores; `data` holds Voyage's results."""

    id: str
    model: str
    results: list[RerankResult]
    meta: dict[str, Any]
    usage: dict[str, int]
    object: Literal["list"] | None = None
    data: list[RerankResult] | None = None


def documents_of(request: RerankRequest, settings: Settings) -> list[str]:
    """Return the texts of a request's documents.

    Raises:
        BadInputError: the query is too long, a document has no text, or the list is empty or too long.
        InvalidTextError: a document is too long.
    """
    check_query(request.query, settings)
    texts = [text_of(document, i, request.rank_fields) for i, document in enumerate(request.documents)]
    return texts_of(texts, settings, name="documents")


def check_query(query: str, settings: Settings) -> None:
    """Check the length of a query. Raises BadInputError when it is too long."""
    if len(query) > settings.max_text_bytes:
        raise BadInputError(f"the query {too_large(settings)}")


def rerank_body(request: RerankRequest, scores: Scores, *, model: str, kind: RerankKind, tokens: int) -> RerankResponse:
    """Return the answer that Cohere's, Jina's and Voyage's clients understand.

    Args:
        scores: float32 (len(request.documents),).
        tokens: read by the model in the query and the documents.
    """
    best = best_first(scores)[: request.most]
    results = [_result(request, i, scores, voyages=False) for i in best]
    return RerankResponse(
        id=str(uuid.uuid4()),
        model=model,
        results=results,
        meta={
            "api_version": {"version": "2"},
            "billed_units": {"search_units": 1},
            "tokens": {"input_tokens": tokens},
            "kind": kind,
        },
        usage={"prompt_tokens": tokens, "total_tokens": tokens},
        object="list" if request.is_voyages else None,
        data=[_result(request, i, scores, voyages=True) for i in best] if request.is_voyages else None,
    )


def _result(request: RerankRequest, i: int, scores: Scores, *, voyages: bool) -> RerankResult:
    """The result of a document, which Voyage returns as a string."""
    given = request.documents[i]
    document: RankedDocument | str | None = None
    if request.return_documents and isinstance(given, str):
        document = given if voyages else RankedDocument(text=given)
    elif request.return_documents:
        document = RankedDocument.model_validate(given)
    return RerankResult(index=i, relevance_score=float(scores[i]), document=document)


def text_of(document: str | dict[str, Any], index: int, rank_fields: list[str] | None = None) -> str:
    """The text of a document that is scored. Raises BadInputError if it has none."""
    if isinstance(document, str):
        return document
    if rank_fields is None:
        text = document.get("text")
        if not isinstance(text, str):
            raise BadInputError(f'document {index} has no string in "text"; send texts, or objects with that field')
        return text
    missing = next((name for name in rank_fields if not isinstance(document.get(name), str)), None)
    if missing is not None:
        raise BadInputError(f"document {index} has no string in {missing!r}, which rank_fields names")
    return "\n".join(document[name] for name in rank_fields)


INPUT_TYPES: dict[str, InputType] = {"search_query": "query", "search_document": "document"}
"""Cohere's input types for which a model may have a prompt; for the others it has none."""

EmbeddingType: TypeAlias = Literal["float", "int8", "uint8", "binary", "ubinary", "base64"]
"""Cohere's number types; base64 is that of float32, little-endian."""


class CohereText(StrictRequest):
    """A piece of an input."""

    type: Literal["text"] = Field(description="semel embeds texts.")
    text: str


class CohereInput(StrictRequest):
    """An input in pieces, which are joined by newlines."""

    content: list[CohereText] = Field(min_length=1)

    @property
    def whole(self) -> str:
        """Its text."""
        return "\n".join(part.text for part in self.content)


class CohereEmbedRequest(StrictRequest):
    """Cohere's request to embed texts."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "model": "minilm",
                "texts": ["The cat sat on the mat."],
                "input_type": "search_document",
                "embedding_types": ["float", "int8"],
            }
        }
    )

    texts: list[str] | None = None
    inputs: list[CohereInput] | None = Field(default=None, description="Instead of `texts`.")
    model: ModelName = None
    input_type: Literal["search_document", "search_query", "classification", "clustering"]
    embedding_types: list[EmbeddingType] = Field(default=["float"], min_length=1)
    output_dimension: int | None = Field(default=None, ge=1)
    max_tokens: int | None = Field(
        default=None, ge=1, description="Cut texts at this many tokens, special ones included."
    )
    truncate: Literal["NONE", "START", "END"] = "END"

    @property
    def variant(self) -> Variant:
        """How the texts are read."""
        return Variant(self.max_tokens, "left" if self.truncate == "START" else "right")

    def given_texts(self) -> list[str]:
        """Its texts. Raises BadInputError unless it has either `texts` or `inputs`."""
        if (self.texts is None) == (self.inputs is None):
            raise BadInputError("send either texts, or inputs with pieces of text")
        return [each.whole for each in self.inputs] if self.inputs is not None else self.texts or []


class CohereV1EmbedRequest(CohereEmbedRequest):
    """Cohere's older request, in which the kind of the texts and the number types are optional."""

    input_type: Literal["search_document", "search_query", "classification", "clustering"] | None = None  # type: ignore[assignment]
    embedding_types: list[EmbeddingType] | None = None  # type: ignore[assignment]


class CohereV1EmbedResponse(BaseModel):
    """The vectors in the order of the texts: a list, or lists by type if the request names types."""

    id: str
    embeddings: list[list[float]] | dict[EmbeddingType, list[list[float | int]] | list[str]]
    texts: list[str]
    meta: dict[str, Any]
    response_type: Literal["embeddings_floats", "embeddings_by_type"]


class CohereEmbedResponse(BaseModel):
    """One list of vectors for each requested type, in the order of the texts."""

    id: str
    embeddings: dict[EmbeddingType, list[list[float | int]] | list[str]]
    texts: list[str]
    meta: dict[str, Any]
    response_type: Literal["embeddings_by_type"] = "embeddings_by_type"
