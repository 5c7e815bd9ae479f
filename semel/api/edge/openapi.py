"""The OpenAPI document: FastAPI's, with the error shapes of each dialect from `semel.api.edge.problems`."""

from typing import Any

from fastapi import FastAPI

from semel.api.edge.traits import Dialect, RouteTable

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

_TEXT: dict[str, Any] = {"type": "string"}

_SCHEMAS: dict[Dialect, dict[str, Any]] = {
    "openai": {
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
    },
    "cohere": {
        "title": "CohereError",
        "type": "object",
        "required": ["message", "code"],
        "properties": {"message": _TEXT, "code": _TEXT},
    },
    "tei": {
        "title": "TeiError",
        "type": "object",
        "required": ["error", "error_type"],
        "properties": {"error": _TEXT, "error_type": _TEXT},
    },
}


def document(app: FastAPI, routes: RouteTable) -> dict[str, Any]:
    """Return the document, with every status that a route may answer."""
    if app.openapi_schema is not None:  # FastAPI keeps the document that it made, and so the changes below
        return app.openapi_schema
    made = FastAPI.openapi(app)
    schemas = made["components"]["schemas"]
    schemas.pop("HTTPValidationError", None)  # FastAPI's error shape, which no route uses
    schemas.pop("ValidationError", None)
    schemas |= {schema["title"]: schema for schema in _SCHEMAS.values()}
    for path, methods in made["paths"].items():
        dialect = routes.dialect(path)
        reference = {"$ref": f"#/components/schemas/{_SCHEMAS[dialect]['title']}"}
        for operation in methods.values():
            answers = operation["responses"]
            answers.pop("422", None)
            for status, why in _statuses(dialect).items():
                answers[str(status)] = {"description": why, "content": {"application/json": {"schema": reference}}}
    return made


def _statuses(dialect: Dialect) -> dict[int, str]:
    if dialect != "tei":
        return _STATUSES
    rest = {status: why for status, why in _STATUSES.items() if status != 400}
    return {**rest, 422: _STATUSES[400], 424: "The device failed."}
