"""An HTTP client that takes less of the machine than the servers it measures: one kept connection on plain sockets."""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import uvloop

T = TypeVar("T")


class LightClient:
    """One kept connection. It sends a request when it has the whole answer to the last.

    Args:
        reader, writer: an open connection; `connect` opens one.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def post(self, path: str, body: bytes) -> tuple[int, bytes]:
        """Send JSON; returns the status and the body of the answer."""
        head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: "
        self._writer.write(b"%b%d\r\n\r\n%b" % (head.encode(), len(body), body))
        return await self._answer()

    async def get(self, path: str) -> tuple[int, bytes]:
        """Return the status and the body of the answer."""
        self._writer.write(f"GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode())
        return await self._answer()

    async def _answer(self) -> tuple[int, bytes]:
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        status = int(head[9:12])
        if b"\r\ntransfer-encoding: chunked" in head:
            return status, await self._chunks()
        at = head.index(b"\r\ncontent-length:") + 17
        return status, await self._reader.readexactly(int(head[at : head.index(b"\r", at)]))

    async def _chunks(self) -> bytes:
        parts = []
        while size := int(await self._reader.readuntil(b"\r\n"), 16):
            parts.append((await self._reader.readexactly(size + 2))[:-2])
        await self._reader.readexactly(2)
        return b"".join(parts)

    def close(self) -> None:
        """Close the connection."""
        self._writer.close()


async def connect(url: str) -> LightClient:
    """Open a connection to `http://HOST:PORT`."""
    host, port = url.removeprefix("http://").split(":")
    return LightClient(*await asyncio.open_connection(host, int(port)))


def on_connections(url: str, count: int, work: Callable[[LightClient, int], Awaitable[T]]) -> tuple[float, list[T]]:
    """Run `work` once per connection, all at the same time.

    Args:
        work: receives its connection, and the connection's number from 0.

    Returns:
        The seconds that they took without the time to connect, and what each returned.
    """

    async def run() -> tuple[float, list[T]]:
        clients = await asyncio.gather(*(connect(url) for _ in range(count)))
        started = time.perf_counter()
        found = await asyncio.gather(*(work(client, number) for number, client in enumerate(clients)))
        seconds = time.perf_counter() - started
        for client in clients:
            client.close()
        return seconds, found

    return uvloop.run(run())


def post_rate(url: str, path: str, bodies: Sequence[bytes], *, connections: int) -> float:
    """Requests per second if the bodies are shared out among connections, one request at a time on each."""

    async def work(client: LightClient, number: int) -> None:
        for body in bodies[number::connections]:
            check(*await client.post(path, body))

    seconds, _ = on_connections(url, connections, work)
    return len(bodies) / seconds


def check(status: int, content: bytes) -> bytes:
    """Return the content of an answer. Ends the benchmark if the status is not 2xx."""
    if not 200 <= status < 300:
        raise SystemExit(f"unexpected answer {status}: {content[:300]!r}")
    return content


def percentile(times_s: Sequence[float], share: float) -> float:
    """Milliseconds within which `share` of the requests were answered, by the nearest rank."""
    return sorted(times_s)[max(0, math.ceil(share * len(times_s)) - 1)] * 1000
