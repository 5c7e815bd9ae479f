"""Waiting on the event loop: a request that waits for a worker holds no thread, and its work ends when its client goes.

The steps of a request (`semel.steps`) run in threads. Small requests share them, see `semel.api.edge.joint_steps`.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from anyio import CapacityLimiter, to_thread
from fastapi import Request
from starlette.requests import ClientDisconnect

from semel.api.deps import services_of
from semel.api.edge.joint_steps import JointSteps, Result, Walk
from semel.steps import Steps
from semel.tasks.queue.sender import QueueSender, Sent

T = TypeVar("T")

_SMALL_BODY_BYTES = 16 << 10
"""The steps of a request with a larger body take long enough for a thread of their own."""

_LARGE = CapacityLimiter(8)
"""Threads for the steps of large requests: they read the cache and encode answers; none waits for a worker."""

_TEXT_READERS = CapacityLimiter(8)
"""Threads for routes that wait for a worker without steps."""


async def take_steps(request: Request, steps: Steps[T]) -> T:
    """Take the steps of a request, and return their result. Raises what they raise, or ClientDisconnect."""
    joint: JointSteps = request.app.state.joint_steps
    sender = services_of(request).fleet.sender
    walk = Walk(steps)
    small = _is_small(request)
    try:
        while True:
            end = await asyncio.wrap_future(joint.submit(walk)) if small else await _in_a_thread(joint, walk)
            if isinstance(end, Result):
                result: T = end.value
                return result
            await _answers(request, sender, end)
            walk.sent = end
    finally:
        walk.context.run(steps.close)


async def reading_texts(read: Callable[[], T]) -> T:
    """Run a call that waits for a worker in one of the threads for that, and return its result."""
    return await to_thread.run_sync(read, limiter=_TEXT_READERS)


def _is_small(request: Request) -> bool:
    declared = request.headers.get("content-length", "")
    return declared.isdigit() and int(declared) <= _SMALL_BODY_BYTES


async def _in_a_thread(joint: JointSteps, walk: Walk[T]) -> "Sent | Result[T]":
    (end,) = await to_thread.run_sync(joint.take, [walk], limiter=_LARGE)
    if isinstance(end, Exception):
        raise end
    return end


async def _answers(request: Request, sender: QueueSender, sent: Sent) -> None:
    """Wait until all texts are answered. Raises ClientDisconnect if the client goes first."""
    answered = asyncio.gather(*(asyncio.wrap_future(answer) for answer in sent.answers), return_exceptions=True)
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait((answered, gone), return_when=asyncio.FIRST_COMPLETED)
        if not answered.done():
            raise ClientDisconnect
    finally:
        gone.cancel()
        if not answered.done():
            sender.drop(sent)
            answered.cancel()
            with suppress(asyncio.CancelledError):
                await answered


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
