"""Threads for those who watch: requests that wait for a device may hold all the others."""

from collections.abc import Callable
from typing import TypeVar

from anyio import CapacityLimiter, to_thread

T = TypeVar("T")

_THREADS = CapacityLimiter(4)


async def for_watchers(read: Callable[[], T]) -> T:
    """What `read` returns, from one of a few threads that are kept for this."""
    return await to_thread.run_sync(read, limiter=_THREADS)
