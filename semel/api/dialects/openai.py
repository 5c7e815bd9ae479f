"""Requests and answers as OpenAI defines them, with semel's own fields."""

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, model_validator

from semel.api.dialects.number_types import NumberType, as_base64, quantized
from semel.api.dialects.strict import StrictRequest
from semel.api.dialects.variants import VariantFields
from semel.cache.catalog import InputType
from semel.values.variant import TruncateSide
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


JINAS_TASKS: dict[str, InputType] = {"retrieval.query": "query", "retrieval.passage": "document"}
"""Jina's tasks for which a model may have its prompt under another name."""


class EmbeddingsRequest(VariantFields, StrictRequest):
    """OpenAI's request to embed texts, with the fields that Voyage, Jina, vLLM and infinity add to it.

    A field of theirs whose default is None stands for one of OpenAI's or semel's, or accepts what semel does anyway.
    """

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
    output_dtype: NumberType | None = Field(default=None, description="Voyage: the number type of the vectors.")
    output_dimension: int | None = Field(default=None, ge=1, description="Voyage: `dimensions`.")
    truncation: bool | None = Field(default=None, description="Voyage: `truncate`.")
    embedding_type: Literal["float", "base64", "binary", "ubinary"] | None = Field(
        default=None, description="Jina: the number type of the vectors, or `encoding_format` base64."
    )
    normalized: bool | None = Field(default=None, description="Jina: `normalize`.")
    task: str | None = Field(
        default=None,
        max_length=MOST_NAME_CHARACTERS,
        description="Jina: use the model's prompt of this name, or for retrieval that for queries or documents.",
    )
    late_chunking: Literal[False] | None = Field(default=None, description="Jina: semel embeds each text alone.")
    truncate_prompt_tokens: int | None = Field(
        default=None, ge=-1, description="vLLM: `max_tokens`; -1 for the model's limit."
    )
    truncation_side: TruncateSide | None = Field(default=None, description="vLLM: `truncate_side`.")
    add_special_tokens: Literal[True] | None = Field(default=None, description="vLLM: the model always reads them.")
    embed_dtype: Literal["float32"] | None = Field(default=None, description="vLLM: use output_dtype for others.")
    endianness: Literal["native", "little"] | None = Field(default=None, description="vLLM: of base64.")
    modality: Literal["text"] | None = Field(default=None, description="infinity: semel embeds texts.")

    @model_validator(mode="after")
    def _resolve(self) -> "EmbeddingsRequest":
        """Give the fields of other dialects their own names. Raises ValueError if two of them disagree."""
        base64_wanted = self.embedding_type == "base64"
        number_type = None if base64_wanted else self.embedding_type
        limit = None if self.truncate_prompt_tokens == -1 else self.truncate_prompt_tokens
        if limit == 0:
            raise ValueError("truncate_prompt_tokens must be -1, or at least 1")
        for name, other, value in (
            ("encoding_format", "embedding_type", "base64" if base64_wanted else None),
            ("output_dtype", "embedding_type", number_type),
            ("dimensions", "output_dimension", self.output_dimension),
            ("truncate", "truncation", self.truncation),
            ("normalize", "normalized", self.normalized),
            ("max_tokens", "truncate_prompt_tokens", limit),
            ("truncate_side", "truncation_side", self.truncation_side),
        ):
            if value is None:
                continue
            if name in self.model_fields_set and getattr(self, name) not in (None, value):
                raise ValueError(f"{name} and {other} are two names of one parameter, and have different values here")
            setattr(self, name, value)
        return self


class Embedding(BaseModel):
    """The vector of the text at position `index`: numbers, or base64 of them, little-endian."""

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
    """OpenAI's model object, with semel's own fields from `kind` on."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "semel"
    kind: str = Field(description="semel: what it computes: embed, cross-encoder, classifier or sparse.")
    dimensions: int = Field(description="semel: numbers in a row; 0 for sparse vectors, which differ.")
    max_tokens: int
    prompts: list[str]
    fingerprint: str
    fingerprints: dict[str, str] = Field(description='semel: prompt name → fingerprint, "" without a prompt.')
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
    rows = quantized(vectors, request.output_dtype or "float")
    encoded: list[Any] = as_base64(rows) if request.encoding_format == "base64" else list(rows)
    return {
        "object": "list",
        "data": [{"object": "embedding", "index": i, "embedding": e} for i, e in enumerate(encoded)],
        "model": model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }
