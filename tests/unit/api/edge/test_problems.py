"""Errors have the shape and the status that the clients of each dialect expect."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from pydantic import BaseModel, Field, ValidationError
from starlette.requests import ClientDisconnect
from structlog.testing import capture_logs

from semel.api.dialects.errors import Dialect
from semel.api.edge.problems import add_problem_handlers, as_bad_input, body_too_large, problem, problem_body
from semel.api.edge.request_id import RequestId
from semel.api.edge.traits import DialectRouter, RouteTable
from semel.errors import (
    BackendError,
    BadInputError,
    ConflictError,
    DeviceLostError,
    EmptyInputError,
    ForbiddenError,
    InvalidTextError,
    NotFoundError,
    OverloadedError,
    SemelError,
    StorageFullError,
    TimedOutError,
    TooManyTextsError,
    UnauthorizedError,
    UnavailableError,
    UnknownModelError,
    UnknownPromptError,
)
from tests.support.answers import dialect_of, message_of

DIALECTS: list[Dialect] = ["openai", "cohere", "tei", "ollama"]

# One error


def body(dialect: Dialect, status: int, code: str, **options: Any) -> tuple[int, Any, dict[str, str]]:
    answer = problem(dialect, status, "what happened", code=code, **options)
    return answer.status_code, json.loads(bytes(answer.body)), dict(answer.headers)


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, "invalid_request_error"), (404, "invalid_request_error"), (429, "rate_limit_error"), (500, "server_error"),
     (503, "server_error")],
)  # fmt: skip
def test_openais_error_has_a_type_by_its_status(status: int, kind: str) -> None:
    got, answer, _ = body("openai", status, "a_code", param="input[3]")
    assert got == status
    error = {"message": "what happened", "type": kind, "code": "a_code", "param": "input[3]"}
    assert answer == {"error": error, "detail": "what happened"}


def test_coheres_error_is_a_message_and_a_code() -> None:
    assert body("cohere", 400, "a_code", param="x")[:2] == (
        400,
        {"message": "what happened", "code": "a_code", "detail": "what happened"},
    )


def test_ollamas_error_is_a_message() -> None:
    assert body("ollama", 400, "a_code", param="x")[:2] == (400, {"error": "what happened"})


@pytest.mark.parametrize(
    ("status", "code", "got", "kind"),
    [
        (400, "invalid_input", 422, "Validation"),
        (400, "empty_input", 400, "Empty"),
        (400, "too_many_texts", 413, "Validation"),
        (404, "model_not_found", 404, "Validation"),
        (429, "rate_limit_exceeded", 429, "Overloaded"),
        (500, "backend_error", 424, "Backend"),
        (500, "device_lost", 424, "Backend"),
        (500, "internal_error", 500, "Backend"),
        (503, "service_unavailable", 503, "Unhealthy"),
        (504, "timeout", 504, "Unhealthy"),
        (507, "storage_full", 507, "Unhealthy"),
    ],
)
def test_teis_error_has_its_own_statuses(status: int, code: str, got: int, kind: str) -> None:
    assert body("tei", status, code)[:2] == (got, {"error": "what happened", "error_type": kind})


@pytest.mark.parametrize("dialect", DIALECTS)
def test_seconds_to_wait_are_rounded_up(dialect: Dialect) -> None:
    assert body(dialect, 429, "rate_limit_exceeded", retry_after_s=2.1)[2]["retry-after"] == "3"
    assert "retry-after" not in body(dialect, 400, "invalid_input")[2]


@pytest.mark.parametrize("status", [503, 504])
def test_a_service_that_comes_back_says_when(status: int) -> None:
    assert body("openai", status, "service_unavailable")[2]["retry-after"] == "2"


def test_a_missing_key_names_its_scheme() -> None:
    assert body("openai", 401, "invalid_api_key")[2]["www-authenticate"] == "Bearer"
    assert "www-authenticate" not in body("openai", 403, "insufficient_scope")[2]


def test_a_body_that_is_too_large_gets_the_limit_and_the_way_out() -> None:
    answer = body_too_large("openai", 1234)
    assert answer.status_code == 413
    assert b"larger than 1234 bytes" in answer.body
    assert b"NDJSON" in answer.body


@pytest.mark.parametrize(
    ("dialect", "error", "expected"),
    [
        (
            "openai",
            InvalidTextError(3, "is empty"),
            (400, {"error": {"message": "text 3 is empty", "type": "invalid_request_error", "code": "invalid_text",
                             "param": "input[3]"}, "detail": "text 3 is empty"}),
        ),
        ("cohere", ConflictError("not now"), (409, {"message": "not now", "code": "conflict", "detail": "not now"})),
    ],
)  # fmt: skip
def test_an_error_for_a_file_has_the_same_shape(dialect: Dialect, error: SemelError, expected: tuple[int, Any]) -> None:
    assert problem_body(dialect, error) == expected


class Wanted(BaseModel):
    """A request with a list of numbers."""

    numbers: list[int] = Field(min_length=1)


@pytest.mark.parametrize(
    ("value", "message"),
    [({"numbers": [1, "x"]}, "numbers.1: "), ({}, "numbers: Field required"), ([], "the body: ")],
)
def test_a_validation_error_becomes_one_sentence_with_its_place(value: Any, message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Wanted.model_validate(value)
    assert str(as_bad_input(caught.value)).startswith(message)


# Errors of routes, on an application with one failing route for each dialect

FAILING: dict[Dialect, str] = {"openai": "/own", "cohere": "/cohere", "tei": "/tei", "ollama": "/ollama"}


class Failing:
    """An application whose routes raise `error`."""

    def __init__(self) -> None:
        self.error: Exception = SemelError()
        routers = [self._router(dialect, path) for dialect, path in FAILING.items()]
        app = FastAPI()
        app.state.route_table = RouteTable(routers)
        for router in routers:
            app.include_router(router)
        add_problem_handlers(app)
        app.add_middleware(RequestId)
        self.http = TestClient(app, raise_server_exceptions=False)

    def _router(self, dialect: Dialect, path: str) -> DialectRouter:
        router = DialectRouter(needs=None, dialect=dialect)

        @router.post(path)
        async def fail() -> None:
            raise self.error

        return router


@pytest.fixture(scope="module")
def failing() -> Iterator[Failing]:
    """An application whose routes raise."""
    app = Failing()
    with app.http:
        yield app


ERRORS: list[tuple[SemelError, int, int]] = [
    (BadInputError("bad"), 400, 422),
    (EmptyInputError("nothing"), 400, 400),
    (TooManyTextsError("too many"), 400, 413),
    (UnknownPromptError("m", "p", ["q"]), 400, 422),
    (InvalidTextError(0, "is empty"), 400, 422),
    (UnknownModelError("m", ["n"]), 404, 404),
    (NotFoundError("job", "job_x"), 404, 404),
    (UnauthorizedError("who"), 401, 401),
    (ForbiddenError("no"), 403, 403),
    (ConflictError("not now"), 409, 409),
    (OverloadedError("full", retry_after_s=3.2), 429, 429),
    (UnavailableError("no Redis"), 503, 503),
    (TimedOutError("late"), 504, 504),
    (StorageFullError("here"), 507, 507),
    (BackendError("device"), 500, 424),
    (DeviceLostError("device"), 500, 424),
    (SemelError("other"), 500, 500),
]


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(("error", "status", "tei_status"), ERRORS, ids=[type(error).__name__ for error, *_ in ERRORS])
def test_every_error_of_semel_keeps_its_message_in_every_dialect(
    failing: Failing, dialect: Dialect, error: SemelError, status: int, tei_status: int
) -> None:
    failing.error = error
    answer = failing.http.post(FAILING[dialect])
    assert answer.status_code == (tei_status if dialect == "tei" else status)
    assert (dialect_of(answer), message_of(answer)) == (dialect, str(error))


def test_overload_says_how_long_to_wait(failing: Failing) -> None:
    failing.error = OverloadedError("full", retry_after_s=3.2)
    assert failing.http.post("/own").headers["retry-after"] == "4"


def test_a_text_is_named_as_a_parameter(failing: Failing) -> None:
    failing.error = InvalidTextError(7, "is empty")
    assert failing.http.post("/own").json()["error"]["param"] == "input[7]"
    failing.error = InvalidTextError.revived("somewhere is a bad text")
    assert failing.http.post("/own").json()["error"]["param"] is None


@pytest.mark.parametrize(
    ("error", "logged"),
    [(SemelError("broken"), True), (BackendError("broken"), True), (UnavailableError("later"), False),
     (BadInputError("yours"), False)],
)  # fmt: skip
def test_only_errors_of_the_server_itself_are_logged(failing: Failing, error: SemelError, logged: bool) -> None:
    failing.error = error
    with capture_logs() as lines:
        failing.http.post("/own")
    assert [(line["event"], line["path"], line["reason"]) for line in lines] == (
        [("request failed", "/own", str(error))] if logged else []
    )


@pytest.mark.parametrize("dialect", DIALECTS)
def test_an_unexpected_error_shows_its_id_and_hides_its_text(failing: Failing, dialect: Dialect) -> None:
    failing.error = RuntimeError("a secret of the server")
    with capture_logs() as lines:
        answer = failing.http.post(FAILING[dialect], headers={"x-request-id": "find-me"})
    assert (answer.status_code, dialect_of(answer), answer.headers["x-request-id"]) == (500, dialect, "find-me")
    assert "unexpected error" in message_of(answer)
    assert "secret" not in answer.text
    (line,) = lines
    assert (line["event"], line["request"], line["exc_info"]) == ("unexpected error", "find-me", failing.error)


def test_a_client_that_is_gone_counts_as_499_and_is_no_error(failing: Failing) -> None:
    failing.error = ClientDisconnect()
    with capture_logs() as lines:
        assert failing.http.post("/own").status_code == 499
    assert [line["log_level"] for line in lines] == ["debug"]
