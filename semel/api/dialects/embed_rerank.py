"""Requests and answers as the service embed-rerank defines its own."""

from typing import Any, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from semel.api.dialects.openai import ModelName
from semel.api.dialects.strict import StrictRequest
from semel.values.variant import Variant


class ErEmbedRequest(StrictRequest):
    """embed-rerank's request to embed texts."""

    model_config = ConfigDict(json_schema_extra={"example": {"texts": ["The cat sat on the mat."]}})

    texts: list[str]
    model: ModelName = None
    normalize: bool | None = True
    auto_truncate: bool | None = Field(default=True, description="False refuses texts above the limit.")
    truncation_strategy: Literal["truncate", "error"] | None = Field(
        default=None, description="semel cuts texts at a token, or refuses them; it does not choose sentences."
    )
    max_tokens_override: int | None = Field(default=None, ge=1, description="Cut texts at this many tokens.")
    batch_size: int | None = Field(default=None, ge=1, description="Has no effect: semel chooses its batches.")
    return_processing_info: Literal[False] | None = None

    @property
    def variant(self) -> Variant:
        """How the texts are read."""
        return Variant(max_tokens=self.max_tokens_override, normalize=self.normalize)

    @property
    def truncate(self) -> bool:
        """Whether texts above the limit are cut."""
        return self.auto_truncate is not False and self.truncation_strategy != "error"


class ErEmbedding(BaseModel):
    """The vector of the text at position `index`."""

    embedding: list[float]
    index: int
    text: str


class ErEmbedResponse(BaseModel):
    """The vectors in the order of the texts, once as `vectors`, once as `embeddings`. Times are seconds."""

    model_config = ConfigDict(protected_namespaces=())

    embeddings: list[ErEmbedding]
    vectors: list[list[float]]
    dim: int
    backend: str
    device: str
    processing_time: float
    model_info: str
    usage: dict[str, float]
    timestamp: str
    num_texts: int


class ErRerankRequest(StrictRequest):
    """embed-rerank's request to rerank passages."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"query": "a pet", "passages": ["a cat", "a stone"]}}, populate_by_name=True
    )

    query: str
    passages: list[str | dict[str, Any]] = Field(validation_alias=AliasChoices("passages", "documents"))
    model: ModelName = None
    top_k: int | None = Field(default=10, ge=1, validation_alias=AliasChoices("top_k", "top_n"))
    return_documents: bool | None = True


class ErRanked(BaseModel):
    """The score of the passage at position `index`."""

    text: str | None
    score: float
    index: int


class ErRerankResponse(BaseModel):
    """The passages, the best first. `method` names how they were scored; times are seconds."""

    model_config = ConfigDict(protected_namespaces=())

    results: list[ErRanked]
    query: str
    backend: str
    device: str
    method: str
    processing_time: float
    model_info: str
    usage: dict[str, float]
    timestamp: str
    num_passages: int
