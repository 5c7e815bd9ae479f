"""A network between the parts of semel that can be slow, silent or cut: TCP proxies on loopback, in one thread."""

import asyncio
import threading
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")

_FORGOTTEN_S = 60.0
"""A server keeps a connection whose client it cannot hear any more for this long, as with keep-alive probes."""


class Network:
    """Runs the links of one test."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._links: list[Link] = []
        self._thread = threading.Thread(target=self._loop.run_forever, name="network", daemon=True)
        self._thread.start()

    def link(self, port: int) -> "Link":
        """A new link to a port of this machine."""
        link = Link(port, self)
        self.run(link.listen())
        self._links.append(link)
        return link

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run something in the network's thread, and wait for it."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def close(self) -> None:
        """Cut every link."""
        self.run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self) -> None:
        for link in self._links:
            await link.end()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0.05)  # transports close in callbacks of the loop


@dataclass(eq=False)
class _Connection:
    """One connection of a client: both of its ends, and whether bytes between them are dropped."""

    to_client: asyncio.StreamWriter
    to_server: asyncio.StreamWriter
    lost: bool = False


class Link:
    """The way from one part to one service.

    Attributes:
        port: where the part finds the service.
    """

    def __init__(self, target: int, network: Network) -> None:
        self.port = 0
        self._server: asyncio.Server | None = None
        self._target = target
        self._network = network
        self._delay_s = 0.0
        self._flows = asyncio.Event()
        self._flows.set()
        self._connections: set[_Connection] = set()

    async def listen(self) -> None:
        """Start; to be run in the network's thread."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def end(self) -> None:
        """Stop listening, and close every connection; to be run in the network's thread."""
        if self._server is not None:
            self._server.close()
        await self._cut()

    def delay(self, seconds: float) -> None:
        """Let everything that is sent arrive this much later."""
        self._delay_s = seconds

    def hold(self) -> None:
        """Let nothing pass, in either direction, until `release`; nothing is lost."""
        self._network.run(self._set_flow(False))

    def release(self) -> None:
        """Let everything pass again."""
        self._network.run(self._set_flow(True))

    def cut(self) -> None:
        """Reset every connection; new ones can be made at once."""
        self._network.run(self._cut())

    def lose(self, *, noticed_s: float | None = None) -> None:
        """Drop what is sent on today's connections, which stay open at both ends; new ones work.

        Args:
            noticed_s: when the part's end is reset. A real one notices by its kernel's probes, which are answered
                here by this machine's kernel.
        """
        self._network.run(self._lose(noticed_s))

    async def _set_flow(self, flows: bool) -> None:
        if flows:
            self._flows.set()
        else:
            self._flows.clear()

    async def _cut(self) -> None:
        for connection in list(self._connections):
            connection.to_client.transport.abort()
            connection.to_server.transport.abort()

    async def _lose(self, noticed_s: float | None) -> None:
        for connection in self._connections:
            connection.lost = True
            if noticed_s is not None:
                asyncio.get_running_loop().call_later(noticed_s, connection.to_client.transport.abort)

    async def _serve(self, from_client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        await self._flows.wait()
        try:
            from_server, to_server = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            to_client.transport.abort()
            return
        connection = _Connection(to_client, to_server)
        self._connections.add(connection)
        ways = [
            asyncio.create_task(self._pump(from_client, to_server, connection)),
            asyncio.create_task(self._pump(from_server, to_client, connection)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            to_client.close()
            if connection.lost:
                await asyncio.sleep(_FORGOTTEN_S)
        finally:
            self._connections.discard(connection)
            for way in ways:
                way.cancel()
            to_client.close()
            to_server.close()

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, connection: _Connection) -> None:
        with suppress(ConnectionError):
            while data := await source.read(1 << 16):
                if self._delay_s:
                    await asyncio.sleep(self._delay_s)
                await self._flows.wait()
                if not connection.lost:
                    sink.write(data)
                    await sink.drain()
