"""Errors as HTTP answers: OpenAI's shape, `{"error": {"message", "type", "code", "param"}}`."""

from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from semel.errors import InvalidTextError, SemelError, UnavailableError
from semel.log import get_log

log = get_log("api")

_RETRY_AFTER_S = 2
"""A worker restarts within seconds."""


def problem(status: int, message: str, *, code: str, param: str | None = None) -> JSONResponse:
    """One error as an answer."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    body = {"error": {"message": message, "type": kind, "code": code, "param": param}}
    headers = {"Retry-After": str(_RETRY_AFTER_S)} if status in (503, 504) else None
    return JSONResponse(body, status, headers=headers)


def add_problem_handlers(app: FastAPI) -> None:
    """Every error of semel's tree, of validation and of routing gets the one shape."""
    app.add_exception_handler(SemelError, _semel_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _unforeseen)


async def _semel_error(request: Request, error: Any) -> JSONResponse:
    if error.status >= 500 and not isinstance(error, UnavailableError):
        log.error("request failed", path=request.url.path, reason=str(error))
    param = f"input[{error.index}]" if isinstance(error, InvalidTextError) else None
    return problem(error.status, str(error), code=error.code, param=param)


async def _validation_error(_request: Request, error: Any) -> JSONResponse:
    first = error.errors()[0]
    param = ".".join(str(part) for part in first["loc"] if part not in ("body", "query"))
    return problem(400, f"{param or 'the request'}: {first['msg']}", code="invalid_input", param=param or None)


async def _http_error(request: Request, error: Any) -> JSONResponse:
    message = f"there is no {request.url.path} here; see /docs" if error.status_code == 404 else str(error.detail)
    return problem(error.status_code, message, code="not_found" if error.status_code == 404 else "invalid_request")


async def _unforeseen(request: Request, error: Exception) -> JSONResponse:
    log.exception("unforeseen error", path=request.url.path, exc_info=error)
    return problem(500, "an error that semel did not foresee; its log has the details", code="internal_error")
