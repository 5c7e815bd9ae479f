"""What a client asks of the server, once for `Client` and `AsyncClient`: each call yields requests and pauses.

`Exchange` and `AsyncExchange` take the steps of a call, and differ in how they wait.
"""

import base64
from collections.abc import Callable, Iterable, Sequence, Sized
from typing import Any, TypeVar

import numpy as np

from semel.client.records import Classification, Relevance, RemoteKey, RemoteModel, key_of, model_of
from semel.client.steps import Call, Request
from semel.client.texts import texts_of
from semel.client.upload import NDJSON, as_lines, ignore
from semel.values.sparse import SparseVector
from semel.values.variant import TruncateSide
from semel.values.vectors import Vectors

T = TypeVar("T", bound=Sized)

_MOST_TEXTS = 1024
"""Texts in one request; the server takes 2,048 by default."""

_MOST_CHARACTERS = 1_000_000
"""Characters in one request, unless a single text has more; the server takes bodies of 4 MiB by default."""


def embed(
    texts: Any,
    *,
    model: str | None = None,
    dimensions: int | None = None,
    input_type: str | None = None,
    prompt_name: str = "",
    truncate: bool = True,
    max_tokens: int | None = None,
    truncate_side: TruncateSide = "right",
    normalize: bool | None = None,
    text_field: str = "text",
) -> Call[Vectors]:
    """Vectors for some texts, float32 (len(texts), dim), in order. Many texts are sent in several requests.

    Args:
        texts: a list of texts, a single text, or a table (pandas, polars, pyarrow, DuckDB) with a column of texts.
        model: a name from the server's list; None for its default.
        dimensions: cut the vectors to this size, if the model was trained for it.
        input_type: `query` or `document`: selects the model's prompt for such texts, if it has one.
        prompt_name: selects a prompt by its name instead.
        truncate: if False, a text above the model's limit is refused; by default it is cut.
        max_tokens: cut texts at this many tokens instead of the model's limit.
        truncate_side: cut the end of a text, or its beginning.
        normalize: whether vectors are scaled to length 1; None follows the model's definition.
        text_field: the column of a table that holds the texts.

    Raises:
        BadInputError: the server refuses the input; the message names the text and the reason.
    """
    optional = {
        "dimensions": dimensions,
        "input_type": input_type,
        "max_tokens": max_tokens,
        "truncate_side": None if truncate_side == "right" else truncate_side,
        "normalize": normalize,
    }
    body = {
        "model": model,
        "encoding_format": "base64",
        "prompt_name": prompt_name,
        "truncate": truncate,
        **{name: value for name, value in optional.items() if value is not None},
    }
    rows: list[Any] = []
    for part in _slices(texts_of(texts, text_field)):
        answer = yield Request("POST", "/v1/embeddings", {"json": {**body, "input": part}})
        rows += [np.frombuffer(base64.b64decode(item["embedding"]), "<f4") for item in answer["data"]]
    return np.stack(rows)


def embed_sparse(
    texts: Any,
    *,
    model: str | None = None,
    prompt_name: str = "",
    truncate: bool = True,
    text_field: str = "text",
) -> Call[list[SparseVector]]:
    """Sparse vectors for some texts, in order. Many texts are sent in several requests.

    Args:
        model: a sparse model; None for the server's default, or its only one.
        texts, prompt_name, truncate, text_field: as of `embed`.

    Raises:
        BadInputError: the server refuses the input; the message names the text and the reason.
    """
    body = {"model": model, "prompt_name": prompt_name, "truncate": truncate}
    rows: list[SparseVector] = []
    for part in _slices(texts_of(texts, text_field)):
        answer = yield Request("POST", "/embed_sparse", {"json": {**body, "inputs": part}})
        for row in answer:
            indices = np.array([entry["index"] for entry in row], np.uint32)
            rows.append(SparseVector(indices, np.array([entry["value"] for entry in row], np.float32)))
    return rows


def classify(
    texts: Iterable[str | tuple[str, str]],
    *,
    model: str | None = None,
    truncate: bool = True,
    raw_scores: bool = False,
) -> Call[list[Classification]]:
    """The label of each text or pair of texts, in order.

    Args:
        model: a classifier; None for the server's default, or its only one.
        truncate: as of `embed`.
        raw_scores: return logits instead of scores.

    Raises:
        BadInputError: the server refuses the input; the message names the text and the reason.
    """
    if isinstance(texts, str):
        texts = [texts]
    inputs = [[item] if isinstance(item, str) else list(item) for item in texts]
    body = {"model": model, "truncate": truncate, "raw_scores": raw_scores}
    found: list[Classification] = []
    for part in _slices(inputs, lambda entry: sum(map(len, entry))):
        answer = yield Request("POST", "/predict", {"json": {**body, "inputs": part}})
        found += [
            Classification.of(*zip(*((each["label"], each["score"]) for each in row), strict=True)) for row in answer
        ]
    return found


def _slices(items: Sequence[T], size_of: Callable[[T], int] = len) -> list[list[T]]:
    """The texts of each request; one empty list for no texts, which the server refuses."""
    parts: list[list[T]] = [[]]
    size = 0
    for item in items:
        length = size_of(item)
        if parts[-1] and (len(parts[-1]) == _MOST_TEXTS or size + length > _MOST_CHARACTERS):
            parts.append([])
            size = 0
        parts[-1].append(item)
        size += length
    return parts


def rerank(
    query: str,
    documents: Any,
    *,
    model: str | None = None,
    top_n: int | None = None,
    raw_scores: bool = False,
) -> Call[list[Relevance]]:
    """The documents by their relevance to the query, the best first.

    Args:
        documents: texts, as for `embed`.
        model: a cross-encoder or an embedding model; None for the server's default.
        top_n: how many to return; None for all.
        raw_scores: return a cross-encoder's logits instead of its scores.

    Raises:
        BadInputError: the server refuses the input; the message names the document and the reason.
    """
    body = {
        "query": query,
        "documents": texts_of(documents, "text"),
        "model": model,
        **({"raw_scores": True} if raw_scores else {}),
        **({} if top_n is None else {"top_n": top_n}),
    }
    answer = yield Request("POST", "/v1/rerank", {"json": body})
    return [Relevance(item["index"], item["relevance_score"]) for item in answer["results"]]


def put_vectors(
    rows: Iterable[tuple[str, Sequence[float]]], *, model: str, prompt_name: str = ""
) -> Call[tuple[int, int]]:
    """Import vectors that this model computed elsewhere; the server computes some of them again and compares.

    Args:
        rows: texts with their vectors; they are sent as a stream.

    Returns:
        The number of stored vectors, and the number of texts that the cache already had.

    Raises:
        BadInputError: a vector is not one of this model; the message names it. Earlier ones may have been stored.
    """
    lines = ({"text": text, "embedding": np.asarray(vector, np.float32).tolist()} for text, vector in rows)
    options = {
        "params": {"model": model, "prompt_name": prompt_name},
        "content": as_lines(lines, ignore),
        "headers": NDJSON,
    }
    answer = yield Request("PUT", "/v1/cache/vectors", options, repeatable=False)
    return answer["stored"], answer["present"]


def models() -> Call[list[RemoteModel]]:
    """Every model that a worker has served, the server's default first."""
    answer = yield Request("GET", "/v1/models")
    return [model_of(item) for item in answer["data"]]


def keys() -> Call[list[RemoteKey]]:
    """The API keys of the server, for administrators."""
    answer = yield Request("GET", "/v1/keys")
    return [key_of(item) for item in answer["data"]]


def ready() -> Call[dict[str, str]]:
    """Part of the server → `ok`, or what is wrong with it. Raises UnavailableError if no server answers."""
    answer = yield Request("GET", "/health/ready", repeatable=False, any_status=True)
    parts: dict[str, str] = answer["parts"]
    return parts
