"""One reading serves all who watch, whoever comes and goes."""

import asyncio
import threading
import time
from types import SimpleNamespace

from semel.api.jobs.events import KEEP_ALIVE, event
from semel.api.watch.live import Frame, Live


class Slow(Live):
    """Its readings end when they are let go; how many were made, and how many at once."""

    def __init__(self) -> None:
        nothing, empty = SimpleNamespace(), SimpleNamespace(as_plain=list)
        super().__init__(nothing, nothing, nothing, empty, overview=dict)  # type: ignore[arg-type]
        self.go = threading.Event()
        self.under_way = self.most_at_once = self.made = 0

    def _read(self, number: int) -> Frame:
        self.under_way += 1
        self.most_at_once = max(self.most_at_once, self.under_way)
        self.go.wait(10)
        self.under_way -= 1
        self.made += 1
        self._read_at = time.monotonic()
        return Frame(number, event("overview", {"number": number}), event("jobs", []))


async def first_news(live: Live) -> bytes:
    async for told in live.events():
        if told != KEEP_ALIVE and not told.startswith(b"event: history"):
            return told
    raise AssertionError("the stream ended")


def test_who_leaves_takes_no_reading_along() -> None:
    async def come_and_go() -> tuple[Slow, set[bytes]]:
        live = Slow()
        for _ in range(5):
            leaver = asyncio.ensure_future(first_news(live))
            await asyncio.sleep(0.05)
            leaver.cancel()
        stay = [asyncio.ensure_future(first_news(live)) for _ in range(3)]
        await asyncio.sleep(0.05)
        live.go.set()
        told = set(await asyncio.gather(*stay))
        told.add(await first_news(live))  # who comes now gets what was just read
        return live, told

    live, told = asyncio.run(come_and_go())
    assert (live.made, live.most_at_once) == (1, 1)
    assert told == {event("overview", {"number": 1}) + event("jobs", [])}
