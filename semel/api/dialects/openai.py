"""Requests and answers as OpenAI defines them, with semel's own fields."""

import base64
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from semel.api.dialects.strict import StrictRequest
from semel.cache.catalog import InputType
from semel.values.vectors import Vectors

MOST_NAME_CHARACTERS = 256
"""Names are repeated in errors and kept with jobs."""

ModelName: TypeAlias = Annotated[
    str | None,
    Field(
        max_length=MOST_NAME_CHARACTERS,
        description="The name of a model; without it, the server's SEMEL_DEFAULT_MODEL.",
    ),
]

InputTypeOfTexts: TypeAlias = Annotated[
    InputType | None, Field(description="semel: use the model's prompt for texts of this kind, if it has one.")
]


class EmbeddingsRequest(StrictRequest):
    """OpenAI's request to embed texts."""

    model_config = ConfigDict(json_schema_extra={"example": {"model": "minilm", "input": ["The cat sat on the mat."]}})

    input: Any = Field(description="A text, or a list of texts.")
    model: ModelName = None
    encoding_format: Literal["float", "base64"] | None = Field(
        default="float", description="null means float: LiteLLM sends null."
    )
    dimensions: int | None = Field(default=None, ge=1)
    user: str | None = None
    input_type: InputTypeOfTexts = None
    prompt_name: str = Field(
        default="",
        max_length=MOST_NAME_CHARACTERS,
        description="semel: the model's prompt to put before each text.",
    )
    truncate: bool = Field(
        default=True, description="semel: false refuses texts above the model's limit instead of cutting them."
    )


class Embedding(BaseModel):
    """The vector of the text at position `index`: numbers, or base64 of float32, little-endian."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class Usage(BaseModel):
    """Tokens that the model read, cached texts included."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingsResponse(BaseModel):
    """OpenAI's list of embeddings, in the order of the input."""

    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str
    usage: Usage


class ModelObject(BaseModel):
    """OpenAI's model object, with semel's own fields from `dimensions` on."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "semel"
    dimensions: int
    max_tokens: int
    prompts: list[str]
    fingerprint: str
    live: bool
    default: bool = Field(description="semel: requests that name no model use this one.")


class ModelList(BaseModel):
    """Every model that a worker has served."""

    object: Literal["list"] = "list"
    data: list[ModelObject]


def embeddings_body(request: EmbeddingsRequest, vectors: Vectors, *, model: str, tokens: int) -> dict[str, Any]:
    """Return OpenAI's answer for `as_json`. It is not a pydantic model, which would validate every number.

    Args:
        vectors: float32 (n, dimensions), in the order of the request's texts.
        tokens: read by the model in all texts.
    """
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
