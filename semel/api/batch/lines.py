"""The lines of a batch's input file: how a line is read, and how its request is run and answered."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from semel.api.dialects.classify import ClassifyRequest, classify_body
from semel.api.dialects.cohere import RerankRequest, documents_of, rerank_body
from semel.api.dialects.embedding import no_vector, space_of, texts_of
from semel.api.dialects.errors import Dialect
from semel.api.dialects.openai import EmbeddingsRequest, embeddings_body
from semel.api.dialects.tei import TeiSparseRequest, sparse_entries, variant_of
from semel.api.edge.parsing import TooManyValuesError, parse_json
from semel.api.edge.problems import as_bad_input
from semel.api.services import Services
from semel.cache.keys import check_text
from semel.dimensions import check_dimensions, cut_dimensions
from semel.errors import BadInputError, SemelError, TextTooLongError
from semel.rerank import no_score, scores_of
from semel.tasks.jobs.batches import LineError
from semel.values.activation import activated
from semel.values.model import Kind, Space
from semel.values.text import Input, ItemError, Outcome

_MOST_ID_CHARACTERS = 512
"""A `custom_id` has at most this many: the answer to the line, and its errors, repeat it."""


@dataclass(frozen=True)
class Line:
    """One line of the file: a request with a valid envelope."""

    custom_id: str
    body: dict[str, Any]


@dataclass(frozen=True)
class Row:
    """The result of one input of a line; `vector`, a row of the model, is meaningless when there is an error."""

    key: bytes
    vector: Any
    outcome: Outcome
    tokens: int
    truncated: bool
    error: ItemError | None


@dataclass(frozen=True)
class LineRequest:
    """A line's request, ready to run.

    Attributes:
        inputs: the texts and pairs to compute, in order, each with its space.
        answer: makes the body of the answer from the rows of the inputs; raises BadInputError.
        failed: makes the error of the request from the position of an input and its error.
    """

    inputs: list[tuple[Space, Input]]
    answer: Callable[[Sequence[Row]], Any]
    failed: Callable[[int, ItemError], SemelError]


class LineProblemError(BadInputError):
    """A line makes the whole batch invalid."""

    def __init__(self, error: LineError) -> None:
        super().__init__(error.message)
        self.line = error


def raw_lines(path: Path, *, max_bytes: int) -> Iterator[tuple[int, bytes]]:
    """Yield (number from 1, bytes) for each line that is not empty; memory holds one line.

    Raises:
        LineProblemError: a line is longer than `max_bytes`.
    """
    with path.open("rb") as file:
        for number in count(1):
            line = file.readline(max_bytes + 1)
            if not line:
                return
            if len(line) > max_bytes:
                message = f"line {number}: longer than {max_bytes} bytes (SEMEL_MAX_BODY_BYTES); split the request"
                raise LineProblemError(LineError("line_too_long", message, line=number))
            if stripped := line.strip():
                yield number, stripped


def read_line(number: int, raw: bytes, *, endpoint: str) -> Line:
    """Read a line's envelope.

    Args:
        endpoint: the path that the line's `url` must have.

    Raises:
        LineProblemError: the line is not a JSON object with a valid envelope.
    """

    def problem(code: str, message: str, param: str | None = None) -> LineProblemError:
        return LineProblemError(LineError(code, f"line {number}: {message}", line=number, param=param))

    try:
        line = parse_json(raw)
    except (ValueError, RecursionError, TooManyValuesError) as error:
        raise problem("invalid_json_line", f"not JSON: {error}") from None
    if not isinstance(line, dict):
        raise problem("invalid_json_line", f"must be a JSON object, not {type(line).__name__}")
    custom_id, body = line.get("custom_id"), line.get("body")
    if not isinstance(custom_id, str) or not custom_id:
        raise problem("invalid_custom_id", "custom_id must be a non-empty string", "custom_id")
    if len(custom_id) > _MOST_ID_CHARACTERS:
        message = f"custom_id is longer than {_MOST_ID_CHARACTERS} characters"
        raise problem("invalid_custom_id", message, "custom_id")
    if line.get("method") != "POST":
        raise problem("invalid_method", f"method must be POST, not {line.get('method')!r}", "method")
    if line.get("url") != endpoint:
        raise problem("mismatched_url", f"url must be {endpoint}, as in the batch, not {line.get('url')!r}", "url")
    if not isinstance(body, dict):
        raise problem("invalid_request", "body must be an object", "body")
    if not isinstance(body.get("model"), str | None):
        raise problem("invalid_request", "body.model must be the name of a model", "body.model")
    return Line(custom_id, body)


def request_of(services: Services, endpoint: str, line: Line) -> LineRequest:
    """The request of a line, validated.

    Raises:
        BadInputError: this request cannot be run; the other lines of the batch still can.
    """
    try:
        return ENDPOINTS[endpoint].read(services, line.body)
    except ValidationError as error:
        raise as_bad_input(error) from None


def _embeddings(services: Services, body: dict[str, Any]) -> LineRequest:
    request = EmbeddingsRequest.model_validate(body)
    space = space_of(services.stores.catalog, request)
    texts = texts_of(request.input, services.settings)
    _check_texts(texts)
    space.check_kind("embed")
    check_dimensions(request.dimensions, space)

    def answer(rows: Sequence[Row]) -> dict[str, Any]:
        _check_whole(rows, truncate=request.truncate, failed=no_vector)
        vectors = cut_dimensions(np.stack([row.vector for row in rows]), request.dimensions, space)
        return embeddings_body(request, vectors, model=space.model, tokens=sum(row.tokens for row in rows))

    return LineRequest([(space, text) for text in texts], answer, no_vector)


def _rerank(services: Services, body: dict[str, Any]) -> LineRequest:
    request = RerankRequest.model_validate(body)
    documents = documents_of(request, services.settings)
    kind, inputs = services.reranker.inputs(request.model, request.query, documents, variant=request.variant)
    failed = partial(no_score, kind)

    def answer(rows: Sequence[Row]) -> dict[str, Any]:
        _check_whole(rows, truncate=request.truncate, failed=failed)
        space = inputs[0][0]
        scores = scores_of(space, np.stack([row.vector for row in rows]), raw=request.raw)
        tokens = sum(row.tokens for row in rows)
        return rerank_body(request, scores, model=space.model, kind=kind, tokens=tokens).model_dump(exclude_none=True)

    return LineRequest(inputs, answer, failed)


def _classify(services: Services, body: dict[str, Any]) -> LineRequest:
    request = ClassifyRequest.model_validate(body)
    space = services.stores.catalog.space_of_kind("classifier", request.model).with_variant(request.variant)
    texts = texts_of(request.input, services.settings)
    _check_texts(texts)

    def answer(rows: Sequence[Row]) -> dict[str, Any]:
        logits = np.stack([row.vector for row in rows])
        scores = logits if request.use_activation is False else activated(space.head.activation, logits)
        return classify_body(space, scores, tokens=sum(row.tokens for row in rows)).model_dump()

    return LineRequest([(space, text) for text in texts], answer, no_vector)


def _embed_sparse(services: Services, body: dict[str, Any]) -> LineRequest:
    request = TeiSparseRequest.model_validate(body)
    space = services.stores.catalog.space_of_kind("sparse", request.model, request.prompt_name or "")
    space = space.with_variant(variant_of(request.truncation_direction))
    texts = texts_of(request.inputs, services.settings, name="inputs")
    _check_texts(texts)

    def answer(rows: Sequence[Row]) -> list[Any]:
        _check_whole(rows, truncate=bool(request.truncate), failed=no_vector)
        return [sparse_entries(row.vector) for row in rows]

    return LineRequest([(space, text) for text in texts], answer, no_vector)


def _check_texts(texts: Sequence[str]) -> None:
    """Raise BadInputError for the first text that no model can read."""
    for index, text in enumerate(texts):
        check_text(text, index)


def _check_whole(rows: Sequence[Row], *, truncate: bool, failed: Callable[[int, ItemError], SemelError]) -> None:
    """Raise the error that `failed` makes of the first cut text, unless the request allows cuts with `truncate`."""
    for index, row in enumerate(rows):
        if row.truncated and not truncate:
            raise failed(index, ItemError.of(TextTooLongError()))


@dataclass(frozen=True)
class BatchEndpoint:
    """An endpoint that a batch may call.

    Attributes:
        read: makes a line's request from the services and the line's body.
        dialect: the shape of errors in the output.
        kind: of the models that lines without a model take; None for the server's default.
    """

    read: Callable[[Services, dict[str, Any]], LineRequest]
    dialect: Dialect
    kind: Kind | None = None


ENDPOINTS = {
    "/v1/embeddings": BatchEndpoint(_embeddings, "openai"),
    "/v1/rerank": BatchEndpoint(_rerank, "cohere"),
    "/classify": BatchEndpoint(_classify, "openai", "classifier"),
    "/embed_sparse": BatchEndpoint(_embed_sparse, "tei", "sparse"),
}
"""Path → endpoint, for every endpoint that a batch may call."""


def default_model(services: Services, endpoint: str) -> str:
    """The model of lines that name none. If several could be meant, it is the default, which the lines then refuse."""
    kind = ENDPOINTS[endpoint].kind
    with suppress(BadInputError):
        if kind is not None:
            return services.stores.catalog.only_model(kind)
    return services.settings.default_model
