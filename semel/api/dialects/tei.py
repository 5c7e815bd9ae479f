"""Requests and answers as Text Embeddings Inference (TEI) defines them."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, FailFast, Field

from semel.api.dialects.openai import MOST_NAME_CHARACTERS
from semel.api.dialects.strict import StrictRequest

Truncate = Annotated[bool | None, Field(description="Cut texts above the model's limit instead of refusing them.")]
"""TEI's switch for texts above the limit; null means false."""

Direction = Annotated[Literal["Right", "right"], Field(description="semel always cuts the end of a text.")]
"""TEI's side to cut; semel refuses the left one."""


class TeiEmbedRequest(StrictRequest):
    """TEI's request to embed texts."""

    model_config = ConfigDict(json_schema_extra={"example": {"inputs": ["The cat sat on the mat."], "truncate": True}})

    inputs: Any = Field(description="A text, or a list of texts.")
    truncate: Truncate = False
    truncation_direction: Direction = "Right"
    normalize: bool = True
    prompt_name: str | None = Field(default=None, max_length=MOST_NAME_CHARACTERS)
    dimensions: int | None = Field(default=None, ge=1)


class TeiRerankRequest(StrictRequest):
    """TEI's request to rerank texts."""

    model_config = ConfigDict(json_schema_extra={"example": {"query": "a pet", "texts": ["a cat", "a stone"]}})

    query: str
    texts: Annotated[list[str], FailFast()]
    truncate: Truncate = False
    truncation_direction: Direction = "Right"
    raw_scores: Literal[False] = Field(default=False, description="semel returns its own score, never the logit.")
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
    parameters: TeiParameters = TeiParameters()
