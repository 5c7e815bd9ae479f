"""Requests and answers as Ollama defines them."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from semel.api.dialects.openai import MOST_NAME_CHARACTERS
from semel.api.dialects.strict import StrictRequest
from semel.values.model import Space
from semel.values.variant import Variant

_TAG = ":latest"
"""What Ollama's clients add to a name without a tag."""

_CHANGE_NO_VECTOR = frozenset(
    {
        *("num_keep", "seed", "num_predict", "top_k", "top_p", "tfs_z", "min_p", "typical_p", "repeat_last_n"),
        *("temperature", "repeat_penalty", "presence_penalty", "frequency_penalty", "mirostat", "mirostat_tau"),
        *("mirostat_eta", "penalize_newline", "stop", "numa", "num_batch", "num_gpu", "main_gpu", "low_vram"),
        *("f16_kv", "vocab_only", "use_mmap", "use_mlock", "num_thread"),
    }
)
"""Options that are about generated text, or about the machine."""


class OllamaRequest(StrictRequest):
    """What both of Ollama's requests for vectors have."""

    model: str = Field(max_length=MOST_NAME_CHARACTERS, description="A model's name, with or without `:latest`.")
    options: dict[str, Any] | None = Field(
        default=None,
        description="`num_ctx` is the length at which texts are cut; options that change no vector may pass.",
    )
    keep_alive: float | str | None = Field(default=None, description="Has no effect: workers decide what stays loaded.")

    @field_validator("options")
    @classmethod
    def _check_options(cls, options: dict[str, Any] | None) -> dict[str, Any] | None:
        for name, value in (options or {}).items():
            if name == "num_ctx":
                if value is not None and (not isinstance(value, int) or value < 1):
                    raise ValueError(f"num_ctx must be a whole number of at least 1, not {value!r}")
            elif name not in _CHANGE_NO_VECTOR and value is not None:
                raise ValueError(f"{name!r} is no option that semel honours; leave it out")
        return options

    def space(self, found: Space) -> Space:
        """The space for the texts, from that of the model; num_ctx is bounded by the model's limit, as in Ollama."""
        wanted = (self.options or {}).get("num_ctx")
        return found.with_variant(Variant(max_tokens=None if wanted is None else min(wanted, found.max_tokens)))


class OllamaEmbedRequest(OllamaRequest):
    """Ollama's request to embed texts."""

    model_config = ConfigDict(json_schema_extra={"example": {"model": "minilm", "input": ["The cat sat on the mat."]}})

    input: Any = Field(description="A text, or a list of texts.")
    truncate: bool | None = Field(default=True, description="False refuses texts above the limit.")
    dimensions: int | None = Field(default=None, ge=1)


class OllamaEmbedResponse(BaseModel):
    """The vectors in the order of the texts. Durations are in nanoseconds."""

    model: str
    embeddings: list[list[float]]
    total_duration: int
    prompt_eval_count: int = Field(description="Tokens that the model read, cached texts included.")


class OllamaOldRequest(OllamaRequest):
    """Ollama's older request, for one text."""

    model_config = ConfigDict(json_schema_extra={"example": {"model": "minilm", "prompt": "The cat sat on the mat."}})

    prompt: str


class OllamaOldResponse(BaseModel):
    """The vector of the text."""

    embedding: list[float]


class OllamaShowRequest(StrictRequest):
    """Ollama's request for what is known about a model; older clients call it `name`."""

    model_config = ConfigDict(json_schema_extra={"example": {"model": "minilm"}})

    model: str | None = Field(default=None, max_length=MOST_NAME_CHARACTERS)
    name: str | None = Field(default=None, max_length=MOST_NAME_CHARACTERS)
    verbose: bool | None = Field(default=None, description="Has no effect: there is no longer form.")


class OllamaDetails(BaseModel):
    """The kind of a model."""

    parent_model: str = ""
    format: str = "safetensors"
    family: str
    families: list[str]
    parameter_size: str = ""
    quantization_level: str


class OllamaModel(BaseModel):
    """A model in Ollama's list. `digest` is that of its vector space; its size on disk is not known here."""

    name: str
    model: str
    modified_at: str
    size: int = 0
    digest: str
    details: OllamaDetails


class OllamaTags(BaseModel):
    """Every model that a worker has served."""

    models: list[OllamaModel]


class OllamaShown(BaseModel):
    """What is known about a model."""

    modelfile: str = ""
    parameters: str = ""
    template: str = ""
    details: OllamaDetails
    model_info: dict[str, Any]
    capabilities: list[Literal["embedding"]]


class OllamaVersion(BaseModel):
    """The version of semel."""

    version: str


def without_tag(name: str) -> str:
    """A model's name without Ollama's default tag."""
    return name.removesuffix(_TAG)


def with_tag(name: str) -> str:
    """A model's name as Ollama lists it."""
    return name if ":" in name else f"{name}{_TAG}"


def details_of(space: Space) -> OllamaDetails:
    """The kind of a model."""
    family = "embedding" if space.kind == "embed" else space.kind
    return OllamaDetails(family=family, families=[family], quantization_level=space.precision)
