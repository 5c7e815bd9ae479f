"""Threads reserved for monitoring."""

import asyncio
import threading

import pytest
from anyio import to_thread

from semel.api.watch.threads import for_watchers


def test_a_reading_runs_in_another_thread_and_its_result_comes_back() -> None:
    assert asyncio.run(for_watchers(threading.get_ident)) != threading.get_ident()


def test_an_error_of_a_reading_comes_back() -> None:
    def broken() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        asyncio.run(for_watchers(broken))


def test_requests_that_occupy_every_other_thread_do_not_hold_it_up() -> None:
    go = threading.Event()

    async def watch() -> str:
        to_thread.current_default_thread_limiter().total_tokens = 2
        waiting = [asyncio.ensure_future(to_thread.run_sync(go.wait)) for _ in range(5)]
        await asyncio.sleep(0)
        try:
            return await asyncio.wait_for(for_watchers(lambda: "read"), 5)
        finally:
            go.set()
            await asyncio.gather(*waiting)

    assert asyncio.run(watch()) == "read"
