"""Errors as HTTP answers, in the shape of the route's dialect.

OpenAI and semel: `{"error": {"message", "type", "code", "param"}}`. Cohere: `{"message", "code"}`.
TEI: `{"error", "error_type"}`, with 422 for input that cannot be used and 424 for a device that failed.
"""

import math
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from semel.api.dialects.errors import SHAPES, Dialect
from semel.api.edge.traits import RouteTable
from semel.errors import (
    BadInputError,
    BodyTooLargeError,
    InvalidTextError,
    OverloadedError,
    SemelError,
    UnavailableError,
)
from semel.log import get_log

log = get_log("api")

_MOST_CHARACTERS = 2000
"""A message has at most this many: nobody reads more, and an answer should not be as large as a hostile request."""

_RETRY_AFTER_S = 2
"""A worker restarts within seconds."""


def problem(
    dialect: Dialect,
    status: int,
    message: str,
    *,
    code: str,
    param: str | None = None,
    retry_after_s: float | None = None,
) -> JSONResponse:
    """Return an error as an answer that clients of this dialect understand.

    Args:
        status: the HTTP status, which TEI's shape may change.
        code: what programs recognise the error by.
        param: the field that is wrong, where the dialect has room for it.
        retry_after_s: seconds until the request may be sent again; 503 and 504 always have semel's own.
    """
    if len(message) > _MOST_CHARACTERS:  # it repeats something that the client sent
        message = f"{message[:_MOST_CHARACTERS]}…"
    message = message.encode("utf-8", "backslashreplace").decode()  # it may repeat half a surrogate pair
    if status in (503, 504):
        retry_after_s = _RETRY_AFTER_S
    headers = {} if retry_after_s is None else {"Retry-After": str(math.ceil(retry_after_s))}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    status, body = SHAPES[dialect].error(status, message, code, param)
    return JSONResponse(body, status, headers=headers)


def add_problem_handlers(app: FastAPI) -> None:
    """Give every error of semel, of validation and of routing the shape of its route's dialect."""
    app.add_exception_handler(SemelError, _semel_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(ClientDisconnect, _client_gone)
    app.add_exception_handler(Exception, _unexpected)


def body_too_large(dialect: Dialect, limit: int) -> JSONResponse:
    """Return the answer to a body that is parsed whole and is larger than `limit` bytes."""
    message = f"the body is larger than {limit} bytes (SEMEL_MAX_BODY_BYTES); send a job as NDJSON, which is streamed"
    return problem(dialect, BodyTooLargeError.status, message, code=BodyTooLargeError.code)


def body_compressed(dialect: Dialect, encoding: str) -> JSONResponse:
    """Return the answer to a body with a Content-Encoding."""
    message = (
        f"the body has the Content-Encoding {encoding!r}: send it as it is. A compressed file of rows (.jsonl.gz, "
        ".csv.zst) can be uploaded to /v1/jobs in a form"
    )
    return problem(dialect, 415, message, code="unsupported_encoding")


def problem_body(dialect: Dialect, error: SemelError) -> tuple[int, Any]:
    """Return the status and the body of an error, for an answer that is written to a file."""
    return SHAPES[dialect].error(error.status, str(error), error.code, _param(error))


def _dialect(request: Request) -> Dialect:
    table: RouteTable = request.app.state.route_table
    return table.dialect(request.url.path)


def _param(error: SemelError) -> str | None:
    if not isinstance(error, InvalidTextError) or error.index is None:
        return None
    return f"input[{error.index}]"


async def _semel_error(request: Request, error: Any) -> JSONResponse:
    if error.status >= 500 and not isinstance(error, UnavailableError):
        log.error("request failed", path=request.url.path, reason=str(error))
    retry_after_s = error.retry_after_s if isinstance(error, OverloadedError) else None
    return problem(
        _dialect(request), error.status, str(error), code=error.code, param=_param(error), retry_after_s=retry_after_s
    )


async def _validation_error(request: Request, error: Any) -> JSONResponse:
    first = error.errors()[0]
    param = ".".join(str(part)[:_MOST_CHARACTERS] for part in first["loc"] if part not in ("body", "query"))
    message = f"{param or 'the request'}: {_said(first)}"
    return problem(_dialect(request), 400, message, code="invalid_input", param=param or None)


async def _http_error(request: Request, error: Any) -> JSONResponse:
    path, unknown = request.url.path, error.status_code == 404
    if error.status_code == BodyTooLargeError.status:
        return body_too_large(_dialect(request), request.app.state.max_body_bytes)
    message = f"there is no route {path}; /docs lists every route" if unknown else str(error.detail)
    return problem(_dialect(request), error.status_code, message, code="not_found" if unknown else "invalid_request")


async def _client_gone(request: Request, _error: Exception) -> Response:
    """The client is gone and reads no answer; the metrics count it under nginx's status for that."""
    log.debug("client closed the connection", path=request.url.path)
    return Response(status_code=499)


async def _unexpected(request: Request, error: Exception) -> JSONResponse:
    request_id = request.state.request_id
    log.exception("unexpected error", path=request.url.path, request=request_id, exc_info=error)
    message = "an unexpected error; the log of the server has the details under the x-request-id of this answer"
    answer = problem(_dialect(request), 500, message, code="internal_error")
    answer.headers["x-request-id"] = request_id
    return answer


def as_bad_input(error: ValidationError) -> BadInputError:
    """Return the first problem that pydantic found, as one sentence."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"]) or "the body"
    return BadInputError(f"{where}: {_said(first)}")


def _said(error: Any) -> str:
    """What is wrong with a field, in words that say what to do."""
    if error.get("type") == "extra_forbidden":
        return "semel does not know this field, and to ignore it could change the answer; leave it out"
    message: str = error["msg"]
    return message.removeprefix("Value error, ")
