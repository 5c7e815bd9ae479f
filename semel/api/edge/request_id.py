"""The header `x-request-id` on every answer: the client's own id if it sent one, else a new one."""

import re
import uuid
from typing import Any

import structlog
from starlette.datastructures import Headers, MutableHeaders

from semel.tracing import annotate

_SAFE = re.compile(r"[A-Za-z0-9._-]{1,128}")
"""A client's id that may be copied into a header and a log."""


class RequestId:
    """ASGI middleware. The log lines and the trace of a request carry its id too."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass a request on, and add its id to the answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        sent = Headers(scope=scope).get("x-request-id", "")
        request_id = sent if _SAFE.fullmatch(sent) else f"req_{uuid.uuid4().hex}"

        scope.setdefault("state", {})["request_id"] = request_id  # an unexpected error is answered outside of this
        annotate(request=request_id)

        async def send_with_id(message: Any) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["x-request-id"] = request_id
            await send(message)

        with structlog.contextvars.bound_contextvars(request=request_id):
            await self._app(scope, receive, send_with_id)
