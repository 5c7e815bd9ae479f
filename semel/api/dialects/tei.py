"""Requests and answers as Text Embeddings Inference (TEI) defines them."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, FailFast, Field

from semel.api.dialects.openai import MOST_NAME_CHARACTERS, ModelName
from semel.api.dialects.strict import StrictRequest
from semel.values.sparse import SparseVector
from semel.values.variant import Variant

Truncate = Annotated[bool | None, Field(description="Cut texts above the model's limit instead of refusing them.")]
"""TEI's switch for texts above the limit; null means false."""

Direction = Annotated[Literal["Right", "right", "Left", "left"], Field(description="The side that is cut.")]
"""TEI's side to cut."""


def variant_of(direction: Direction, *, normalize: bool | None = None) -> Variant:
    """How the texts of a request are read."""
    return Variant(truncate_side="left" if direction in ("Left", "left") else "right", normalize=normalize)


class TeiEmbedRequest(StrictRequest):
    """TEI's request to embed texts."""

    model_config = ConfigDict(json_schema_extra={"example": {"inputs": ["The cat sat on the mat."], "truncate": True}})

    inputs: Any = Field(description="A text, or a list of texts.")
    truncate: Truncate = False
    truncation_direction: Direction = "Right"
    normalize: bool = True
    prompt_name: str | None = Field(default=None, max_length=MOST_NAME_CHARACTERS)
    dimensions: int | None = Field(default=None, ge=1)


class TeiSparseRequest(StrictRequest):
    """TEI's request for sparse vectors."""

    model_config = ConfigDict(json_schema_extra={"example": {"inputs": ["The cat sat on the mat."]}})

    model: ModelName = Field(default=None, description="semel: a sparse model; null for the default, or the only one.")
    inputs: Any = Field(description="A text, or a list of texts.")
    truncate: Truncate = False
    truncation_direction: Direction = "Right"
    prompt_name: str | None = Field(default=None, max_length=MOST_NAME_CHARACTERS)


class SparseEntry(BaseModel):
    """A token of the vocabulary, and its weight."""

    index: int
    value: float


def sparse_entries(row: SparseVector) -> list[dict[str, int | float]]:
    """A sparse vector as TEI sends it."""
    return [
        {"index": index, "value": value} for index, value in zip(row.indices.tolist(), row.values.tolist(), strict=True)
    ]


class TeiRerankRequest(StrictRequest):
    """TEI's request to rerank texts."""

    model_config = ConfigDict(json_schema_extra={"example": {"query": "a pet", "texts": ["a cat", "a stone"]}})

    query: str
    texts: Annotated[list[str], FailFast()]
    truncate: Truncate = False
    truncation_direction: Direction = "Right"
    raw_scores: bool = Field(default=False, description="Return a cross-encoder's logits.")
    return_text: bool = False


class TeiRank(BaseModel):
    """The score of the text at position `index` of the request, from 0."""

    index: int
    score: float
    text: str | None = None


class TeiTokenizeRequest(StrictRequest):
    """TEI's request to split texts into tokens."""

    model_config = ConfigDict(json_schema_extra={"example": {"inputs": ["The cat sat on the mat."]}})

    inputs: Any = Field(description="A text, or a list of texts.")
    add_special_tokens: bool = True
    prompt_name: str | None = Field(default=None, max_length=MOST_NAME_CHARACTERS)


class TeiToken(BaseModel):
    """A token. `start` and `stop` count characters of the prompt and the text; a special token has neither."""

    id: int
    text: str
    special: bool
    start: int | None
    stop: int | None


class TeiSentences(StrictRequest):
    """A sentence, and the sentences to compare it with."""

    source_sentence: str
    sentences: list[str]


class TeiParameters(StrictRequest):
    """How the sentences are embedded."""

    truncate: Truncate = False
    truncation_direction: Direction = "Right"
    prompt_name: str | None = Field(default=None, max_length=MOST_NAME_CHARACTERS)


class TeiSimilarityRequest(StrictRequest):
    """TEI's request for the similarity of sentences."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"inputs": {"source_sentence": "a pet", "sentences": ["a cat", "a stone"]}}}
    )

    inputs: TeiSentences
    parameters: TeiParameters | None = None
