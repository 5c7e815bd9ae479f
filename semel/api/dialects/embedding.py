"""What the dialects share: texts in, every vector or an error out, and the headers that tell what the cache did."""

from typing import Any

from semel.api.dialects.openai import EmbeddingsRequest
from semel.api.jobs.wire import JobRequest
from semel.api.services import Services
from semel.cache.catalog import Catalog
from semel.errors import BadInputError, InvalidTextError, SemelError, is_fault_of_the_text, revive
from semel.pipeline import check_dimensions, cut_dimensions
from semel.settings import Settings
from semel.values.model import Space
from semel.values.text import ItemError, Outcome
from semel.values.vectors import Embedded, Vectors


def texts_of(given: Any, settings: Settings, *, name: str = "input") -> list[str]:
    """The texts of a request: one, or a list.

    Args:
        settings: say how many texts a request has at the most, and how long one may be.
        name: what the dialect calls them.

    Raises:
        BadInputError: neither; says what it is and what to send.
        InvalidTextError: a text is too long.
    """
    limit = settings.max_request_texts
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list):
        raise BadInputError(f"{name} must be a text or a list of texts, not {type(given).__name__}")
    if not texts:
        raise BadInputError(f"{name} is an empty list; send at least one text")
    if len(texts) > limit:
        raise BadInputError(
            f"{name} has {len(texts)} texts, the limit of one request is {limit}; send a job: POST /v1/jobs"
        )
    if all(isinstance(item, int | list) for item in texts):
        raise BadInputError(
            f"{name} holds token ids; semel's key is over the text, so send strings "
            "(LangChain: OpenAIEmbeddings(check_embedding_ctx_length=False))"
        )
    for index, text in enumerate(texts):
        if isinstance(text, str) and len(text) > settings.max_text_bytes:
            raise InvalidTextError(index, too_large(settings))
    return texts


def too_large(settings: Settings) -> str:
    """What is said of a text above the limit of the server."""
    return f"is longer than {settings.max_text_bytes} characters (SEMEL_MAX_TEXT_BYTES)"


def embed_all(
    services: Services, space: Space, texts: list[str], *, truncate: bool = True, dimensions: int | None = None
) -> tuple[Embedded, Vectors]:
    """Vectors of every text, float32 (len(texts), dimensions).

    Raises:
        InvalidTextError: the first text that has no vector; the others are in the cache by then.
        BadInputError: a cross-encoder, or a size that this model cannot be cut to; nothing is computed.
    """
    check_dimensions(dimensions, space)
    embedded = services.pipeline.embed(space, texts, truncate=truncate)
    for index, error in embedded.errors.items():
        raise no_vector(index, error)
    return embedded, cut_dimensions(embedded.vectors, dimensions, space)


def no_vector(index: int, error: ItemError) -> SemelError:
    """What a request fails with whose text at this place has no vector."""
    if is_fault_of_the_text(error.code):
        return InvalidTextError(index, f"has no vector: {error.message}")
    return revive(error.code, f"text {index} has no vector: {error.message}")


def cache_headers(*answers: Embedded) -> dict[str, str]:
    """`x-semel-cache: hits=…; computed=…; coalesced=…`, `x-semel-truncated`, and milliseconds as TEI names them.

    `x-inference-time` is what the worker took, `x-queue-time` what else was waited for it; without them a large
    request ran as a job, whose chunks nobody timed.
    """
    named = {"hits": Outcome.HIT, "computed": Outcome.COMPUTED, "coalesced": Outcome.COALESCED}
    counts = "; ".join(f"{name}={sum(a.count(outcome) for a in answers)}" for name, outcome in named.items())
    headers = {"x-semel-cache": counts, "x-semel-truncated": str(sum(int(a.truncated.sum()) for a in answers))}
    timed = [answer.inference_s for answer in answers if answer.inference_s is not None]
    if len(timed) == len(answers):
        waited_s, inference_s = sum(answer.waited_s for answer in answers), sum(timed)
        headers["x-inference-time"] = f"{inference_s * 1000:.1f}"
        headers["x-queue-time"] = f"{max(0.0, waited_s - inference_s) * 1000:.1f}"
    return headers


def space_of(catalog: Catalog, wanted: EmbeddingsRequest | JobRequest, *, device: str = "auto") -> Space:
    """The space that a request or a job means. Raises UnknownModelError, BadInputError."""
    if wanted.input_type and wanted.prompt_name:
        raise BadInputError("input_type and prompt_name both name a prompt; send one of them")
    if wanted.input_type:
        return catalog.space_for_input(wanted.model, wanted.input_type, device=device)
    return catalog.space(wanted.model, wanted.prompt_name, device=device)
