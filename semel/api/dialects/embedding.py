"""What the dialects share: reading texts, embedding all of them or failing, and headers about the cache."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from semel.api.dialects.openai import JINAS_TASKS, EmbeddingsRequest
from semel.api.jobs.wire import JobRequest
from semel.api.services import Services
from semel.cache.catalog import Catalog
from semel.dimensions import check_dimensions, cut_dimensions
from semel.error_codes import is_fault_of_the_text, revive
from semel.errors import (
    BadInputError,
    EmptyInputError,
    InvalidTextError,
    SemelError,
    TooManyTextsError,
    UnknownPromptError,
)
from semel.settings import Settings
from semel.steps import Steps
from semel.values.model import Space
from semel.values.text import Input, ItemError, Outcome
from semel.values.vectors import Embedded, Vectors


def texts_of(given: Any, settings: Settings, *, name: str = "input") -> list[str]:
    """Return the texts of a request, which holds a single text or a list.

    Whether each item is a text that can be embedded is checked later.

    Args:
        given: the field of the request.
        settings: limit how many texts a request may have and how long each may be.
        name: what the dialect calls the field, for errors.

    Raises:
        BadInputError: `given` is neither, or the list is empty or too long, or holds token ids.
        InvalidTextError: a text is too long.
    """
    limit = settings.max_request_texts
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list):
        raise BadInputError(f"{name} must be a text or a list of texts, not {type(given).__name__}")
    if not texts:
        raise EmptyInputError(f"{name} is an empty list; send at least one text")
    if len(texts) > limit:
        raise TooManyTextsError(
            f"{name} has {len(texts)} texts, and one request takes at most {limit}; submit a job: POST /v1/jobs"
        )
    if all(isinstance(item, int | list) for item in texts):
        raise BadInputError(
            f"{name} holds token ids, but semel's cache is keyed by text: send strings "
            "(LangChain: OpenAIEmbeddings(check_embedding_ctx_length=False))"
        )
    for index, text in enumerate(texts):
        if isinstance(text, str) and len(text) > settings.max_text_bytes:
            raise InvalidTextError(index, too_large(settings))
    return texts


def too_large(settings: Settings) -> str:
    """Return the predicate of an error about a text above the server's limit, to follow its name."""
    return f"is longer than {settings.max_text_bytes} characters (SEMEL_MAX_TEXT_BYTES)"


def embed_all(
    services: Services, space: Space, texts: list[str], *, truncate: bool = True, dimensions: int | None = None
) -> Steps[tuple[Embedded, Vectors]]:
    """Embed every text, or fail; in steps, which stop where texts must be computed.

    Args:
        truncate: False makes a text above the model's limit fail instead of being cut.
        dimensions: cut the vectors to this size; None keeps the model's own.

    Returns:
        What the pipeline returned, and the vectors, float32 (len(texts), dimensions).

    Raises:
        InvalidTextError: a text has no vector; the error names the first one. The others are cached.
        BadInputError: the model computes no dense vectors, or cannot be cut to this size; nothing was computed.
        UnavailableError, OverloadedError, BackendError, StorageFullError: nothing can compute or store the vectors now.
    """
    space.check_kind("embed")
    check_dimensions(dimensions, space)
    embedded = yield from computed(services, space, texts, truncate=truncate)
    return embedded, cut_dimensions(embedded.vectors, dimensions, space)


def computed(services: Services, space: Space, items: Sequence[Input], *, truncate: bool = True) -> Steps[Embedded]:
    """What the model computes of every text or pair, or an error, as of `embed_all`."""
    embedded = yield from services.pipeline.steps(space, items, truncate=truncate)
    for index, error in embedded.errors.items():
        raise no_vector(index, error)
    return embedded


def no_vector(index: int, error: ItemError) -> SemelError:
    """Return the error of a request whose text at position `index` has no vector because of `error`."""
    if is_fault_of_the_text(error.code):
        return InvalidTextError(index, f"has no vector: {error.message}")
    return revive(error.code, f"text {index} has no vector: {error.message}")


def cache_headers(*answers: Embedded) -> dict[str, str]:
    """Return the headers of an answer: `x-semel-cache: hits=…; computed=…; coalesced=…`, `x-semel-truncated` and times.

    The times are milliseconds under TEI's names: `x-inference-time` is the time of the worker, `x-queue-time` the rest
    of the wait. A large request travels in several messages, whose times overlap, and has neither.
    """
    outcomes = {"hits": Outcome.HIT, "computed": Outcome.COMPUTED, "coalesced": Outcome.COALESCED}
    counts = "; ".join(f"{name}={sum(a.count(outcome) for a in answers)}" for name, outcome in outcomes.items())
    headers = {"x-semel-cache": counts, "x-semel-truncated": str(sum(int(a.truncated.sum()) for a in answers))}
    timed = [answer.inference_s for answer in answers if answer.inference_s is not None]
    if len(timed) == len(answers):
        waited_s, inference_s = sum(answer.waited_s for answer in answers), sum(timed)
        headers["x-inference-time"] = f"{inference_s * 1000:.1f}"
        headers["x-queue-time"] = f"{max(0.0, waited_s - inference_s) * 1000:.1f}"
    return headers


def space_of(catalog: Catalog, request: EmbeddingsRequest | JobRequest, *, device: str = "auto") -> Space:
    """Return the vector space that a request or a job names.

    Raises:
        UnknownModelError: no worker has ever served the model.
        UnknownPromptError: the model has no such prompt.
        BadInputError: the request names a prompt in two ways, or the model cannot be read in its variant.
    """
    return _prompted(catalog, request, device).with_variant(request.variant)


def _prompted(catalog: Catalog, request: EmbeddingsRequest | JobRequest, device: str) -> Space:
    """The space of the prompt that a request chooses."""
    task = request.task if isinstance(request, EmbeddingsRequest) else None
    chosen = [
        name
        for name, value in (("input_type", request.input_type), ("prompt_name", request.prompt_name), ("task", task))
        if value
    ]
    if len(chosen) > 1:
        raise BadInputError(f"{' and '.join(chosen)} both choose a prompt; send only one of them")
    if task:
        return _space_for_task(catalog, request.model, task, device)
    kind = request.input_type
    if isinstance(request, JobRequest) and not chosen:
        kind = "document"
    if kind:
        return catalog.space_for_input(request.model, None if kind == "none" else kind, device=device)
    return catalog.space(request.model, request.prompt_name, device=device)


def _space_for_task(catalog: Catalog, model: str | None, task: str, device: str) -> Space:
    """The space of the prompt that a model has for one of Jina's tasks. Raises UnknownPromptError if it has none."""
    if task in JINAS_TASKS:
        with suppress(UnknownPromptError):
            return catalog.space(model, task, device=device)
        space = catalog.space_for_input(model, JINAS_TASKS[task], device=device)
        if space.prompt_name:
            return space
    return catalog.space(model, task, device=device)
