"""Reading the API's answers in tests."""

from typing import Any

import httpx

SHAPES: dict[str, Any] = {
    "openai": {"error": {"message", "type", "code", "param"}, "detail": None},
    "cohere": {"message", "code", "detail"},
    "tei": {"error", "error_type"},
    "ollama": {"error": None},
}
"""The fields of an error, by dialect; Ollama's `error` is the message itself."""


def message_of(answer: httpx.Response) -> str:
    """The message of an error in any dialect."""
    body = answer.json()
    if "error" not in body:
        return str(body["message"])
    error = body["error"]
    return str(error["message"] if isinstance(error, dict) else error)


def dialect_of(answer: httpx.Response) -> str:
    """The dialect whose error shape an answer has."""
    body = answer.json()
    fields = {name: set(value) if isinstance(value, dict) else None for name, value in body.items()}
    found = [name for name, shape in SHAPES.items() if shape in (fields, set(body))]
    assert len(found) == 1, body
    return found[0]
