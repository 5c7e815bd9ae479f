"""413 for bodies that are parsed whole and are too large.

A body that declares its size is refused at once, any other one while it arrives.
"""

from typing import Any

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException

from semel.api.edge.problems import body_too_large
from semel.api.edge.traits import RouteTable


class BodyLimit:
    """ASGI middleware that limits bodies. Routes that stream their body limit it themselves.

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
        if scope["type"] != "http" or self._routes.traits(scope["method"], scope["path"]).streams_body:
            await self._app(scope, receive, send)
            return
        declared = Headers(scope=scope).get("content-length", "0")
        if declared.isdigit() and int(declared) > self._max_bytes:
            await body_too_large(self._routes.dialect(scope["path"]), self._max_bytes)(scope, receive, send)
            return
        read = 0

        async def bounded() -> Any:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > self._max_bytes:
                raise HTTPException(413)  # while FastAPI reads a body, it passes this error on unchanged
            return message

        await self._app(scope, bounded, send)
