"""The OpenAPI document: FastAPI's, with the errors of each dialect as `semel.api.edge.problems` words them."""

from typing import Any

from fastapi import FastAPI

from semel.api.edge.traits import Dialect, RouteTable

_STATUSES = {
    400: "What was sent cannot be used; the message says where and why.",
    401: "No API key, or an unknown one.",
    403: "The API key allows less.",
    404: "An unknown model or id.",
    409: "The thing is not in a state that allows this.",
    413: "The body is too large.",
    429: "Too much work waits; `Retry-After` says for how long.",
    500: "An error that semel did not foresee.",
    503: "A part does not answer, or no worker serves the model.",
    504: "Not done in time; what was computed is cached.",
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
    """The document of every route with every status that it may answer."""
    if app.openapi_schema is not None:  # FastAPI keeps what it made, with what was added here
        return app.openapi_schema
    made = FastAPI.openapi(app)
    schemas = made["components"]["schemas"]
    schemas.pop("HTTPValidationError", None)  # FastAPI's own shape, which no answer here has
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
