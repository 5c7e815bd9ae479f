"""The errors of each dialect: the shape of an answer, its schema, and the statuses that its routes use.

A new dialect is an entry in `SHAPES`, a file with its wire models next to this one, and a router in `semel/api/routes`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from semel.errors import BackendError, DeviceLostError, EmptyInputError, TooManyTextsError

Dialect: TypeAlias = Literal["openai", "cohere", "tei", "ollama"]
"""The dialect of a route's errors; semel's own routes answer with OpenAI's."""


@dataclass(frozen=True)
class ErrorShape:
    """The errors of one dialect.

    Attributes:
        error: from status, message, code and the wrong field (or None) to the status and body of the answer.
        schema: the body's JSON schema, whose title names it in the OpenAPI document.
        statuses: the statuses that a route may answer with, and what each means.
    """

    error: Callable[[int, str, str, str | None], tuple[int, Any]]
    schema: dict[str, Any]
    statuses: dict[int, str]


def _openai(status: int, message: str, code: str, param: str | None) -> tuple[int, Any]:
    kind = "rate_limit_error" if status == 429 else "invalid_request_error" if status < 500 else "server_error"
    # Voyage's and Jina's clients, which use the same paths, read the message in `detail`.
    return status, {"error": {"message": message, "type": kind, "code": code, "param": param}, "detail": message}


def _cohere(status: int, message: str, code: str, _param: str | None) -> tuple[int, Any]:
    return status, {"message": message, "code": code, "detail": message}


def _tei(status: int, message: str, code: str, _param: str | None) -> tuple[int, Any]:
    if code in (BackendError.code, DeviceLostError.code):
        return 424, {"error": message, "error_type": "Backend"}
    if code == EmptyInputError.code:
        return 400, {"error": message, "error_type": "Empty"}
    if code == TooManyTextsError.code:
        return 413, {"error": message, "error_type": "Validation"}
    if status == 400:
        return 422, {"error": message, "error_type": "Validation"}
    kinds = {429: "Overloaded", 500: "Backend", 503: "Unhealthy", 504: "Unhealthy", 507: "Unhealthy"}
    return status, {"error": message, "error_type": kinds.get(status, "Validation")}


def _ollama(status: int, message: str, _code: str, _param: str | None) -> tuple[int, Any]:
    return status, {"error": message}


_STATUSES = {
    400: "The request cannot be used; the message explains where and why.",
    401: "The API key is missing or unknown.",
    403: "The scope of the API key is too small, or its quota on disk is used up.",
    404: "The model or the id is unknown.",
    409: "The current state of the object does not allow this.",
    413: "The body is too large.",
    415: "The body is compressed.",
    429: "Too much work waits; try again after `Retry-After` seconds.",
    500: "An unexpected error.",
    503: "A part of the service does not answer, or no worker serves the model.",
    504: "Not finished in time; vectors that were computed are cached.",
    507: "The database is full.",
}

_OF_TEI = {
    **_STATUSES,
    400: "The request has no text.",
    413: "The request has too many texts, or its body is too large.",
    422: _STATUSES[400],
    424: "The device failed.",
}

_TEXT: dict[str, Any] = {"type": "string"}

_OPENAI_SCHEMA = {
    "title": "Error",
    "type": "object",
    "required": ["error", "detail"],
    "properties": {
        "detail": {"type": "string", "description": "The message once more, for Voyage's and Jina's clients."},
        "error": {
            "type": "object",
            "required": ["message", "type", "code", "param"],
            "properties": {
                "message": _TEXT,
                "type": _TEXT,
                "code": _TEXT,
                "param": {"anyOf": [_TEXT, {"type": "null"}]},
            },
        },
    },
}

_COHERE_SCHEMA = {
    "title": "CohereError",
    "type": "object",
    "required": ["message", "code", "detail"],
    "properties": {"message": _TEXT, "code": _TEXT, "detail": _TEXT},
}

_TEI_SCHEMA = {
    "title": "TeiError",
    "type": "object",
    "required": ["error", "error_type"],
    "properties": {"error": _TEXT, "error_type": _TEXT},
}

_OLLAMA_SCHEMA = {
    "title": "OllamaError",
    "type": "object",
    "required": ["error"],
    "properties": {"error": _TEXT},
}

SHAPES: dict[Dialect, ErrorShape] = {
    "openai": ErrorShape(_openai, _OPENAI_SCHEMA, _STATUSES),
    "cohere": ErrorShape(_cohere, _COHERE_SCHEMA, _STATUSES),
    "tei": ErrorShape(_tei, _TEI_SCHEMA, _OF_TEI),
    "ollama": ErrorShape(_ollama, _OLLAMA_SCHEMA, _STATUSES),
}
