"""Times every answer for the metrics."""

import time
from collections.abc import Callable
from typing import Any

_UNKNOWN_ROUTE = "none"
"""Of a path that no route takes; the path itself could be anything."""


class HttpMetrics:
    """ASGI middleware that times answers, and tells method, route, status and seconds."""

    def __init__(self, app: Any, *, answered: Callable[[str, str, int, float], None]) -> None:
        self._app = app
        self._answered = answered

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, begun = time.perf_counter(), False

        def tell(status: int) -> None:
            nonlocal begun
            begun = True
            route = getattr(scope.get("route"), "path", _UNKNOWN_ROUTE)
            self._answered(_method(scope), route, status, time.perf_counter() - started)

        async def timed(message: Any) -> None:
            if message["type"] == "http.response.start":
                tell(message["status"])
            await send(message)

        try:
            await self._app(scope, receive, timed)
        except Exception:
            if not begun:
                tell(500)  # which Starlette answers, outside of this
            raise


def _method(scope: Any) -> str:
    method: str = scope["method"]
    return method if method in ("GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH") else "other"
