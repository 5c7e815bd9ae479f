"""The OpenAPI document: FastAPI's, with the error shapes of each dialect from `semel.api.dialects.errors`."""

from typing import Any

from fastapi import FastAPI

from semel.api.dialects.errors import SHAPES
from semel.api.edge.traits import RouteTable


def document(app: FastAPI, routes: RouteTable) -> dict[str, Any]:
    """Return the document, with every status that a route may answer."""
    if app.openapi_schema is not None:  # FastAPI keeps the document that it made, and so the changes below
        return app.openapi_schema
    made = FastAPI.openapi(app)
    schemas = made["components"]["schemas"]
    schemas.pop("HTTPValidationError", None)  # FastAPI's error shape, which no route uses
    schemas.pop("ValidationError", None)
    schemas |= {shape.schema["title"]: shape.schema for shape in SHAPES.values()}
    for path, methods in made["paths"].items():
        shape = SHAPES[routes.dialect(path)]
        reference = {"$ref": f"#/components/schemas/{shape.schema['title']}"}
        for operation in methods.values():
            answers = operation["responses"]
            answers.pop("422", None)
            for status, why in shape.statuses.items():
                answers[str(status)] = {"description": why, "content": {"application/json": {"schema": reference}}}
    return made
