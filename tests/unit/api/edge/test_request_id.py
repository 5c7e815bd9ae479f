"""Every answer, every log line and every trace of a request carries one id."""

import asyncio
import re
from typing import Any

import pytest
import structlog

from semel.api.edge.request_id import RequestId
from tests.support.service import Service

NEW = re.compile(r"req_[0-9a-f]{32}")


def handled(sent: str | None) -> tuple[str, str, str]:
    """The id in the answer, in the log context and in the state of a request that was sent with an id."""
    seen: dict[str, str] = {}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen["log"] = structlog.contextvars.get_contextvars()["request"]
        seen["state"] = scope["state"]["request_id"]
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message: Any) -> None:
        seen["answer"] = dict(message["headers"])[b"x-request-id"].decode()

    headers = [] if sent is None else [(b"x-request-id", sent.encode("latin-1"))]
    asyncio.run(RequestId(app)({"type": "http", "headers": headers}, None, send))
    return seen["answer"], seen["log"], seen["state"]


@pytest.mark.parametrize("sent", ["my-id.1", "A" * 128, "0"])
def test_the_id_of_the_client_is_kept_everywhere(sent: str) -> None:
    assert handled(sent) == (sent, sent, sent)


@pytest.mark.parametrize("sent", [None, "", "a b", "<script>", "A" * 129, "a\nb", "é", "a;b", "my-id\n"])
def test_an_id_that_is_missing_or_not_safe_is_replaced(sent: str | None) -> None:
    answer, log, state = handled(sent)
    assert NEW.fullmatch(answer)
    assert answer == log == state


def test_two_requests_get_two_ids() -> None:
    assert handled(None)[0] != handled(None)[0]


def test_the_log_context_ends_with_the_request() -> None:
    handled("only-here")
    assert "request" not in structlog.contextvars.get_contextvars()


def test_what_is_no_http_request_has_no_id() -> None:
    seen: list[dict[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope)

    asyncio.run(RequestId(app)({"type": "lifespan"}, None, None))
    assert seen == [{"type": "lifespan"}]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/health/live", 200), ("GET", "/nowhere", 404), ("GET", "/embed", 405), ("POST", "/v1/embeddings", 400)],
)
def test_every_answer_of_the_api_has_an_id(api: Service, method: str, path: str, status: int) -> None:
    answer = api.http.request(method, path, headers={"x-request-id": "seen-by-the-client"})
    assert (answer.status_code, answer.headers["x-request-id"]) == (status, "seen-by-the-client")
    assert NEW.fullmatch(api.http.request(method, path).headers["x-request-id"])
