"""Every answer is measured once, with the route that gave it."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from semel.api.edge.http_metrics import HttpMetrics
from tests.support.service import Service

Answered = list[tuple[str, str, int]]


def measured(app: Any, scope: dict[str, Any]) -> tuple[Answered, list[float], BaseException | None]:
    """What is reported of a request to an app, the seconds, and what the app raises."""
    answered: Answered = []
    seconds: list[float] = []
    raised: BaseException | None = None

    def report(method: str, route: str, status: int, took_s: float) -> None:
        answered.append((method, route, status))
        seconds.append(took_s)

    async def send(message: Any) -> None:
        pass

    try:
        asyncio.run(HttpMetrics(app, answered=report)(scope, None, send))
    except RuntimeError as error:
        raised = error
    return answered, seconds, raised


def answering(statuses: Sequence[int], *, route: Any = None, then: Exception | None = None) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if route is not None:
            scope["route"] = route
        for status in statuses:
            await send({"type": "http.response.start", "status": status})
            await send({"type": "http.response.body", "body": b"x"})
        if then is not None:
            raise then

    return app


class Route:
    """What Starlette puts in the scope."""

    path = "/v1/jobs/{job_id}"


def test_an_answer_is_reported_under_the_pattern_of_its_route() -> None:
    answered, seconds, _ = measured(answering([200], route=Route()), {"type": "http", "method": "GET"})
    assert answered == [("GET", "/v1/jobs/{job_id}", 200)]
    assert 0 <= seconds[0] < 10


def test_a_path_without_a_route_is_not_a_label() -> None:
    answered, *_ = measured(answering([404]), {"type": "http", "method": "GET", "path": "/any/thing"})
    assert answered == [("GET", "none", 404)]


def test_an_invented_method_is_not_a_label() -> None:
    answered, *_ = measured(answering([405]), {"type": "http", "method": "BREW"})
    assert answered == [("other", "none", 405)]


def test_an_unexpected_error_is_counted_as_500() -> None:
    answered, _, raised = measured(answering([], then=RuntimeError("unexpected")), {"type": "http", "method": "GET"})
    assert (answered, str(raised)) == ([("GET", "none", 500)], "unexpected")


def test_an_error_after_the_answer_began_is_counted_once() -> None:
    answered, _, raised = measured(answering([200], then=RuntimeError("late")), {"type": "http", "method": "GET"})
    assert (answered, str(raised)) == ([("GET", "none", 200)], "late")


@pytest.mark.parametrize("kind", ["lifespan", "websocket"])
def test_what_is_no_http_request_is_not_reported(kind: str) -> None:
    async def silent(scope: Any, receive: Any, send: Any) -> None:
        pass

    assert measured(silent, {"type": kind})[0] == []


def test_the_api_reports_its_answers_to_prometheus(api: Service) -> None:
    api.http.get("/v1/jobs/job_of_the_metrics")
    text = api.http.get("/metrics").text
    assert 'semel_http_request_seconds_count{method="GET",route="/v1/jobs/{job_id}",status="404"} 1.0' in text
    assert "job_of_the_metrics" not in text
