"""The errors of each dialect: the shape of an answer, its schema, and the statuses that its routes use.

A new dialect is an entry in `SHAPES`, a file with its wire models next to this one, and a router in `semel/api/routes`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from semel.errors import BackendError, DeviceLostError

Dialect: TypeAlias = Literal["openai", "cohere", "tei"]
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
    return status, {"error": {"message": message, "type": kind, "code": code, "param": param}}


def _cohere(status: int, message: str, code: str, _param: str | None) -> tuple[int, Any]:
    return status, {"message": message, "code": code}


def _tei(status: int, message: str, code: str, _param: str | None) -> tuple[int, Any]:
    if code in (BackendError.code, DeviceLostError.code):
        return 424, {"error": message, "error_type": "Backend"}
    if status == 400:
        return 422, {"error": message, "error_type": "Validation"}
    kinds = {429: "Overloaded", 503: "Unhealthy", 504: "Unhealthy"}
    return status, {"error": message, "error_type": kinds.get(status, code)}


_STATUSES = {
    400: "The request cannot be used; the message explains where and why.",
    401: "The API key is missing or unknown.",
    403: "The scope of the API key is too small.",
    404: "The model or the id is unknown.",
    409: "The current state of the object does not allow this.",
    413: "The body is too large.",
    429: "Too much work waits; try again after `Retry-After` seconds.",
    500: "An unexpected error.",
    503: "A part of the service does not answer, or no worker serves the model.",
    504: "Not finished in time; vectors that were computed are cached.",
    507: "The database is full.",
}

_OF_TEI = {
    **{status: why for status, why in _STATUSES.items() if status != 400},
    422: _STATUSES[400],
    424: "The device failed.",
}

_TEXT: dict[str, Any] = {"type": "string"}

_OPENAI_SCHEMA = {
    "title": "Error",
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "code", "param"],
            "properties": {
                "message": _TEXT,
                "type": _TEXT,
                "code": _TEXT,
                "param": {"anyOf": [_TEXT, {"type": "null"}]},
            },
        }
    },
}

_COHERE_SCHEMA = {
    "title": "CohereError",
    "type": "object",
    "required": ["message", "code"],
    "properties": {"message": _TEXT, "code": _TEXT},
}

_TEI_SCHEMA = {
    "title": "TeiError",
    "type": "object",
    "required": ["error", "error_type"],
    "properties": {"error": _TEXT, "error_type": _TEXT},
}

SHAPES: dict[Dialect, ErrorShape] = {
    "openai": ErrorShape(_openai, _OPENAI_SCHEMA, _STATUSES),
    "cohere": ErrorShape(_cohere, _COHERE_SCHEMA, _STATUSES),
    "tei": ErrorShape(_tei, _TEI_SCHEMA, _OF_TEI),
}
