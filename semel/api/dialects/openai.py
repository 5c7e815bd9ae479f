"""What goes in and out over HTTP."""

import base64
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from semel.cache.catalog import InputType
from semel.values.vectors import Vectors

ModelName: TypeAlias = Annotated[str | None, Field(description="Left out, it is SEMEL_DEFAULT_MODEL of the server.")]

InputTypeOfTexts: TypeAlias = Annotated[
    InputType | None, Field(description="semel: takes the model's prompt for such texts, when it has one.")
]


class EmbeddingsRequest(BaseModel):
    """OpenAI's request for embeddings."""

    model_config = ConfigDict(json_schema_extra={"example": {"model": "minilm", "input": ["The cat sat on the mat."]}})

    input: Any = Field(description="A text, or a list of texts.")
    model: ModelName = None
    encoding_format: Literal["float", "base64"] | None = Field(
        default="float", description="null is float: LiteLLM sends it."
    )
    dimensions: int | None = Field(default=None, ge=1)
    user: str | None = None
    input_type: InputTypeOfTexts = None
    prompt_name: str = Field(default="", description="semel: which of the model's prompts goes before each text.")
    truncate: bool = Field(default=True, description="semel: false refuses texts above the model's limit.")


class Embedding(BaseModel):
    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class Usage(BaseModel):
    prompt_tokens: int
    total_tokens: int


class EmbeddingsResponse(BaseModel):
    """OpenAI's list of embeddings, in the order of the input."""

    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str
    usage: Usage


class ModelObject(BaseModel):
    """OpenAI's model object, and what semel knows beside it."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "semel"
    dimensions: int
    max_tokens: int
    prompts: list[str]
    fingerprint: str
    live: bool
    default: bool = Field(description="semel: this is who a request means that names no model.")


class ModelList(BaseModel):
    object: Literal["list"] = "list"
    data: list[ModelObject]


def embeddings_body(request: EmbeddingsRequest, vectors: Vectors, *, model: str, tokens: int) -> dict[str, Any]:
    """OpenAI's answer, for `as_json`: pydantic would walk every number."""
    if request.encoding_format == "base64":
        encoded: list[Any] = [base64.b64encode(row.tobytes()).decode() for row in vectors.astype("<f4")]
    else:
        encoded = list(vectors)
    return {
        "object": "list",
        "data": [{"object": "embedding", "index": i, "embedding": e} for i, e in enumerate(encoded)],
        "model": model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }
