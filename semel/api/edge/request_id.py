"""`x-request-id` on every answer: the client's own when it sent one, else a new one."""

import re
import uuid
from typing import Any

import structlog
from starlette.datastructures import Headers, MutableHeaders

from semel.tracing import annotate

_SOUND = re.compile(r"[A-Za-z0-9._-]{1,128}")
"""What may be echoed into a header and a log."""


class RequestId:
    """ASGI middleware. Log lines of the request, and its trace, carry the id too."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if _SOUND.fullmatch(given) else f"req_{uuid.uuid4().hex}"

        scope.setdefault("state", {})["request_id"] = request_id  # for the answer to an unforeseen error, made outside
        annotate(request=request_id)

        async def send_with_id(message: Any) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["x-request-id"] = request_id
            await send(message)

        with structlog.contextvars.bound_contextvars(request=request_id):
            await self._app(scope, receive, send_with_id)
