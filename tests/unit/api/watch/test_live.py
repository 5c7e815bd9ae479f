"""Frames for the page: one reading serves all watchers, however often they come and go."""

import asyncio
import threading
import time
from collections import deque
from types import SimpleNamespace

import pytest

from semel.api.jobs.events import KEEP_ALIVE, event
from semel.api.watch import live as module
from semel.api.watch.live import Frame, Live


class Slow(Live):
    """Its readings end when they are let go.

    Attributes:
        made: how many readings were made.
        most_at_once: how many of them ran at the same time.
    """

    def __init__(self) -> None:
        nothing, empty = SimpleNamespace(), SimpleNamespace(as_plain=list)
        super().__init__(nothing, nothing, empty, overview=dict)  # type: ignore[arg-type]
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
    async for sent in live.events():
        if sent != KEEP_ALIVE and not sent.startswith(b"event: history"):
            return sent
    raise AssertionError("the stream ended")


def test_a_watcher_that_leaves_takes_no_reading_along() -> None:
    async def come_and_go() -> tuple[Slow, set[bytes]]:
        live = Slow()
        for _ in range(5):
            leaver = asyncio.ensure_future(first_news(live))
            await asyncio.sleep(0.05)
            leaver.cancel()
        stay = [asyncio.ensure_future(first_news(live)) for _ in range(3)]
        await asyncio.sleep(0.05)
        live.go.set()
        sent = set(await asyncio.gather(*stay))
        sent.add(await first_news(live))  # a watcher that comes now receives what was just read
        return live, sent

    live, sent = asyncio.run(come_and_go())
    assert (live.made, live.most_at_once) == (1, 1)
    assert sent == {event("overview", {"number": 1}) + event("jobs", [])}


def test_a_slow_reading_is_bridged_by_comments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_KEEP_ALIVE_S", 0.01)

    async def watch() -> list[bytes]:
        live = Slow()
        stream = live.events()
        sent = [await anext(stream) for _ in range(3)]
        live.go.set()
        await live._reading  # type: ignore[misc]
        return [*sent, await anext(stream)]

    history, *comments, news = asyncio.run(watch())
    assert history == event("history", [])
    assert comments == [KEEP_ALIVE, KEEP_ALIVE]
    assert news.startswith(b"event: overview")


def watched(live: Live, *frames: Frame) -> list[bytes]:
    """What a watcher receives for these frames, without the history."""

    async def watch() -> list[bytes]:
        left = list(frames)

        async def read() -> None:
            live._frame = left.pop(0)

        live._next = lambda: asyncio.ensure_future(read())  # type: ignore[method-assign, assignment]
        stream = live.events()
        await anext(stream)
        return [await anext(stream) for _ in frames]

    return asyncio.run(watch())


def test_only_what_changed_is_sent() -> None:
    sent = watched(
        Slow(), Frame(1, b"o1", b"j1"), Frame(2, b"o2", b"j1"), Frame(3, b"o2", b"j2"), Frame(4, b"o2", b"j2")
    )
    assert sent == [b"o1j1", b"o2", b"j2", KEEP_ALIVE]


def test_a_watcher_that_comes_back_after_a_pause_waits_for_a_new_frame() -> None:
    live = Slow()
    live._frame, live._read_at = Frame(7, b"old", b""), time.monotonic() - 60
    assert watched(live, Frame(8, b"new", b"")) == [b"new"]


def test_watchers_are_sent_away_when_the_server_ends() -> None:
    async def end() -> list[bytes]:
        live = Slow()
        live.go.set()
        live.stop()
        assert await live.pause(60) is False
        return [sent async for sent in live.events()]

    assert asyncio.run(end()) == [event("history", [])]


def test_a_pause_ends_by_itself_while_the_server_runs() -> None:
    async def wait() -> tuple[bool, bool]:
        live = Slow()
        return await live.pause(0.001), await live.pause(-5)

    assert asyncio.run(wait()) == (True, True)


def test_a_reading_waits_for_its_period(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    async def pause(seconds: float) -> bool:
        pauses.append(seconds)
        return True

    async def read(*, open_jobs: bool) -> None:
        live = Slow()
        live.go.set()
        live.pause = pause  # type: ignore[method-assign]
        live._read_at = time.monotonic()
        live._done = {"job": deque()} if open_jobs else {}
        await live._read_in_time()

    asyncio.run(read(open_jobs=True))
    asyncio.run(read(open_jobs=False))
    assert pauses == [pytest.approx(1.0, abs=0.1), pytest.approx(2.0, abs=0.1)]
