"""Bounds of connections: how many are open, how large the head of a request is, and how long it may take to arrive.

Without them, half-sent requests use up the descriptors of the process, and nobody can reach the server any more.
"""

import resource
import time
from asyncio import BaseTransport, TimerHandle
from typing import Any, cast

from typing_extensions import override
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from semel.log import get_log

log = get_log("connections")

MAX_HEAD_BYTES = 64 << 10
"""Request line and headers; h11 and nginx have about the same bound."""

_TOO_LARGE = f"the head of the request is larger than {MAX_HEAD_BYTES} bytes"

HEAD_S = 20.0
"""How long the head of a request may take to arrive, from its first byte, or after the connection was made."""

MAX_CONNECTIONS = 8192
"""Open connections, where the limit on descriptors allows that many."""

_KEPT_DESCRIPTORS = 96
"""Descriptors for everything else: the database, Redis, uploads."""

_REPORT_S = 60.0


def connection_limit() -> int:
    """The number of connections that may be open. Raises the process's own limit on descriptors as far as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_CONNECTIONS + _KEPT_DESCRIPTORS
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return max(8, min(MAX_CONNECTIONS, max(soft, wanted) - _KEPT_DESCRIPTORS))


class BoundedHttp(HttpToolsProtocol):
    """uvicorn's protocol with bounds.

    When too many connections are open, the one that has been idle for longest makes room: one that waits for a head, or
    is kept open between two requests. A connection with a request under way is never closed for another.
    """

    limit = MAX_CONNECTIONS
    _reported_at = 0.0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head_bytes = 0
        self._head_timer: TimerHandle | None = None
        self._idle_since: float | None = time.monotonic()

    @override
    def connection_made(self, transport: BaseTransport) -> None:
        super().connection_made(transport)  # type: ignore[arg-type]  # a transport of a socket
        self._await_head()
        if len(self.connections) > self.limit:
            self._make_room()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    @override
    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._head_timer is not None:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self._refuse(431, _TOO_LARGE)

    @override
    def on_message_begin(self) -> None:
        self._await_head()
        super().on_message_begin()

    @override
    def on_headers_complete(self) -> None:
        self._stop_timer()
        self._idle_since = None
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if size > MAX_HEAD_BYTES:  # it arrived in one piece
            self._refuse(431, _TOO_LARGE)
            return
        super().on_headers_complete()

    @override
    def on_response_complete(self) -> None:
        self._idle_since = time.monotonic()
        super().on_response_complete()

    def _await_head(self) -> None:
        self._stop_timer()
        self._head_bytes = 0
        self._head_timer = self.loop.call_later(HEAD_S, self._refuse, 408, f"no request within {HEAD_S:g} s")

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _refuse(self, status: int, message: str) -> None:
        self._stop_timer()
        if not self.transport.is_closing():
            text = f"{message}\n".encode()
            head = f"HTTP/1.1 {status} Refused\r\ncontent-type: text/plain\r\ncontent-length: {len(text)}\r\n"
            self.transport.write(f"{head}connection: close\r\n\r\n".encode() + text)
            self.transport.close()

    def _make_room(self) -> None:
        others = [cast("BoundedHttp", other) for other in self.connections if other is not self]
        idle = [other for other in others if other._idle_since is not None]
        oldest = min(idle, key=lambda other: other._idle_since or 0.0, default=self)
        if time.monotonic() - BoundedHttp._reported_at > _REPORT_S:
            BoundedHttp._reported_at = time.monotonic()
            log.warning("too many connections: the one that was idle for longest is closed", limit=self.limit)
        oldest.transport.abort()
        self.connections.discard(oldest)  # `connection_lost` follows in the next turn of the loop
