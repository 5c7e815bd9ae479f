"""Bounds of a body: 413 for one that is parsed whole and is too large, 408 for one that arrives too slowly.

A compressed body is refused with 415: its size is not known before it is decompressed.

A body that declares its size is refused at once, any other one while it arrives.
"""

import asyncio
import math
from typing import Any

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException

from semel.api.edge.problems import body_compressed, body_too_large
from semel.api.edge.traits import RouteTable

PAUSE_S = 30.0
"""How long a body that is parsed whole may keep the server waiting, in all."""

STREAM_PAUSE_S = 120.0
"""How long a streamed body may be silent: its rows may come from a slow source. A sweep ends such an upload, too."""

SLOWEST_BYTES_PER_S = 1024
"""Each so many bytes that have arrived allow one more second: Apache's mod_reqtimeout has about the same rate."""


class BodyLimit:
    """ASGI middleware that limits bodies. Routes that stream their body limit its size themselves.

    Args:
        routes: names the routes that stream their body, and the dialect of each error.
        max_bytes: the size of the largest body that is accepted.
    """

    def __init__(self, app: Any, *, routes: RouteTable, max_bytes: int) -> None:
        self._app = app
        self._routes = routes
        self._max_bytes = max_bytes

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass a request on, or refuse its body."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        is_streamed = self._routes.traits(scope["method"], scope["path"]).streams_body
        limit = math.inf if is_streamed else self._max_bytes
        encoding = Headers(scope=scope).get("content-encoding", "identity")
        if encoding.lower() != "identity":
            await body_compressed(self._routes.dialect(scope["path"]), encoding)(scope, receive, send)
            return
        declared = Headers(scope=scope).get("content-length", "0")
        if declared.isdigit() and int(declared) > limit:
            await body_too_large(self._routes.dialect(scope["path"]), self._max_bytes)(scope, receive, send)
            return
        await self._app(scope, _Bounded(receive, limit, is_streamed=is_streamed), send)


class _Bounded:
    """`receive` of a request, with bounds. While a body is read, the errors pass through FastAPI unchanged."""

    def __init__(self, receive: Any, limit: float, *, is_streamed: bool) -> None:
        self._receive = receive
        self._is_streamed = is_streamed
        self._limit = limit
        self._read = 0
        self._waited_s = 0.0
        self._more = True

    async def __call__(self) -> Any:
        """The next message. Raises HTTPException: the body is too large or too slow."""
        if not self._more:  # what follows is the end of the connection, for which a route may wait as long as it likes
            return await self._receive()
        message = await self._paced()
        self._more = message.get("more_body", False)
        self._read += len(message.get("body", b""))
        if self._read > self._limit:
            raise HTTPException(413)
        return message

    async def _paced(self) -> Any:
        clock = asyncio.get_running_loop().time
        started, allowed_s = clock(), PAUSE_S + self._read / SLOWEST_BYTES_PER_S - self._waited_s
        try:
            async with asyncio.timeout(STREAM_PAUSE_S if self._is_streamed else allowed_s):
                return await self._receive()
        except TimeoutError:
            raise HTTPException(408, "the body arrives too slowly; send it again, as fast as you can") from None
        finally:
            self._waited_s += clock() - started
