"""Threads reserved for monitoring: requests that wait for a device may occupy all other threads."""

from collections.abc import Callable
from typing import TypeVar

from anyio import CapacityLimiter, to_thread

T = TypeVar("T")

_THREADS = CapacityLimiter(4)


async def for_watchers(read: Callable[[], T]) -> T:
    """Run `read` in one of the reserved threads, and return its result."""
    return await to_thread.run_sync(read, limiter=_THREADS)
