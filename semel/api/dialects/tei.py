"""Text Embeddings Inference on the wire."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Truncate = Annotated[bool | None, Field(description="Cut texts above the model's limit instead of refusing them.")]

Direction = Annotated[Literal["Right", "right"], Field(description="semel cuts the end of a text.")]


class TeiEmbedRequest(BaseModel):
    """TEI's request for embeddings."""

    model_config = ConfigDict(json_schema_extra={"example": {"inputs": ["The cat sat on the mat."], "truncate": True}})

    inputs: Any = Field(description="A text, or a list of texts.")
    truncate: Truncate = False
    truncation_direction: Direction = "Right"
    normalize: bool = True
    prompt_name: str | None = None
    dimensions: int | None = Field(default=None, ge=1)


class TeiRerankRequest(BaseModel):
    """TEI's request for scores."""

    model_config = ConfigDict(json_schema_extra={"example": {"query": "a pet", "texts": ["a cat", "a stone"]}})

    query: str
    texts: list[str]
    truncate: Truncate = False
    truncation_direction: Direction = "Right"
    raw_scores: bool = Field(default=False, description="Without effect: a cosine is told as it is.")
    return_text: bool = False


class TeiRank(BaseModel):
    index: int
    score: float
    text: str | None = None


class TeiTokenizeRequest(BaseModel):
    """TEI's request for tokens."""

    model_config = ConfigDict(json_schema_extra={"example": {"inputs": ["The cat sat on the mat."]}})

    inputs: Any = Field(description="A text, or a list of texts.")
    add_special_tokens: bool = True
    prompt_name: str | None = None


class TeiToken(BaseModel):
    """`start` and `stop` are characters of the text with its prompt; a special token has none."""

    id: int
    text: str
    special: bool
    start: int | None
    stop: int | None


class TeiSentences(BaseModel):
    source_sentence: str
    sentences: list[str]


class TeiParameters(BaseModel):
    truncate: Truncate = False
    truncation_direction: Direction = "Right"
    prompt_name: str | None = None


class TeiSimilarityRequest(BaseModel):
    """TEI's request for similarities."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"inputs": {"source_sentence": "a pet", "sentences": ["a cat", "a stone"]}}}
    )

    inputs: TeiSentences
    parameters: TeiParameters = TeiParameters()
