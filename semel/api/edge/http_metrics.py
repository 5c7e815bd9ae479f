"""Measures the time of every answer for the metrics."""

import time
from collections.abc import Callable
from typing import Any

_UNKNOWN_ROUTE = "none"
"""The route of a request that matches none. The path is not used: it could be anything."""


class HttpMetrics:
    """ASGI middleware that measures how long requests wait for their answer.

    Args:
        answered: called with method, route, status and seconds when an answer begins.
    """

    def __init__(self, app: Any, *, answered: Callable[[str, str, int, float], None]) -> None:
        self._app = app
        self._answered = answered

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass a request on, and report its answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, answering = time.perf_counter(), False

        def report(status: int) -> None:
            nonlocal answering
            answering = True
            route = getattr(scope.get("route"), "path", _UNKNOWN_ROUTE)
            self._answered(_method(scope), route, status, time.perf_counter() - started)

        async def timed(message: Any) -> None:
            if message["type"] == "http.response.start":
                report(message["status"])
            await send(message)

        try:
            await self._app(scope, receive, timed)
        except Exception:
            if not answering:
                report(500)  # Starlette sends this answer, outside this middleware
            raise


def _method(scope: Any) -> str:
    method: str = scope["method"]
    return method if method in ("GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH") else "other"
