"""What a direct route reads from its request, and how the OpenAPI document shows it; see `semel.api.edge.traits`."""

from collections.abc import Callable
from typing import Any, TypeVar

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError

from semel.api.edge.parsing import parse_json
from semel.api.edge.traits import LARGE_BODY_BYTES, parse_aside
from semel.errors import BadInputError

M = TypeVar("M", bound=BaseModel)


async def read_json(request: Request, model: type[M]) -> M:
    """Read a JSON body. A request without a Content-Type is taken for JSON. Raises as `read_either`."""
    return await read_either(request, lambda _given: model)


async def read_either(request: Request, choose: Callable[[Any], type[M]]) -> M:
    """Read a JSON body whose model depends on its content.

    Args:
        choose: returns the model for the parsed body.

    Raises:
        BadInputError: another Content-Type, or too many values.
        RequestValidationError: the body is not JSON, or a field is wrong.
        ClientDisconnect: the client has gone.
    """
    kind = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if kind != "application/json" and not kind.endswith("+json"):
        raise BadInputError(f"unsupported Content-Type {kind!r}: send JSON, with Content-Type: application/json")
    body = await request.body()

    def parse() -> M:
        try:
            given = parse_json(body)  # pydantic's own parser refuses lone surrogates without naming the text
        except ValueError as error:
            raise RequestValidationError([{"loc": ("body",), "msg": f"not JSON: {error}"}]) from None
        return _validated(lambda: choose(given).model_validate(given), "body")

    return await parse_aside(parse) if len(body) > LARGE_BODY_BYTES else parse()


def read_query(request: Request, model: type[M]) -> M:
    """Read the query parameters. Raises RequestValidationError: one is wrong."""
    return _validated(lambda: model.model_validate(dict(request.query_params)), "query")


def _validated(validate: Callable[[], M], where: str) -> M:
    try:
        return validate()
    except ValidationError as error:
        raise RequestValidationError([{**each, "loc": (where, *each["loc"])} for each in error.errors()]) from None


def shows_json(model: type[BaseModel]) -> dict[str, Any]:
    """The `openapi_extra` of a route that reads this JSON body."""
    schema = model.model_json_schema()
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def shows_query(model: type[BaseModel]) -> list[dict[str, Any]]:
    """The OpenAPI parameters of a route that reads this query."""
    properties = model.model_json_schema().get("properties", {})
    return [
        {"name": name, "in": "query", "description": schema.pop("description", ""), "schema": schema}
        for name, schema in properties.items()
    ]
