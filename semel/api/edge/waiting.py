"""Waiting on the event loop: a request that waits for a worker holds no thread, and its work ends when its client goes.

The steps of a request (`semel.steps`) run in a few threads of their own, one stop at a time.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Generic, Protocol, TypeVar

from anyio import CapacityLimiter, to_thread
from fastapi import Depends, Request
from starlette.requests import ClientDisconnect

from semel.api.deps import ServicesDep
from semel.errors import SemelError
from semel.steps import Steps, resume
from semel.tasks.queue.sender import QueueSender, Sent

T = TypeVar("T")

_STEPS = CapacityLimiter(8)
"""Threads for the steps: they read the cache, hand texts to the queue and encode answers; none waits for a worker."""

_TEXT_READERS = CapacityLimiter(8)
"""Threads for routes that wait for a worker without steps."""


@dataclass(frozen=True)
class _Result(Generic[T]):
    value: T


class TakeSteps(Protocol):
    """Takes the steps of a request, and returns their result. Raises what they raise, or ClientDisconnect."""

    def __call__(self, steps: Steps[T]) -> Awaitable[T]:
        """Return the result of the steps."""
        ...  # pragma: no cover


async def _take_steps(request: Request, services: ServicesDep) -> TakeSteps:
    sender = services.fleet.sender

    async def take(steps: Steps[T]) -> T:
        sent: Sent | None = None
        try:
            while True:
                stop = await to_thread.run_sync(_next_stop, sender, steps, sent, limiter=_STEPS)
                if isinstance(stop, _Result):
                    result: T = stop.value
                    return result
                sent = stop
                await _answers(request, sender, sent)
        finally:
            steps.close()

    return take


TakeStepsDep = Annotated[TakeSteps, Depends(_take_steps)]
"""The dependency of a route that may wait for workers."""


async def reading_texts(read: Callable[[], T]) -> T:
    """Run a call that waits for a worker in one of the threads for that, and return its result."""
    return await to_thread.run_sync(read, limiter=_TEXT_READERS)


def _next_stop(sender: QueueSender, steps: Steps[T], sent: Sent | None) -> "Sent | _Result[T]":
    """Go on to the next stop, and have the texts computed that are missing there; or to the end."""
    try:
        missing = next(steps) if sent is None else resume(steps, sent.result)
        while True:
            try:
                return sender.begin(missing.space, missing.texts, lane=missing.lane)
            except SemelError as error:  # the steps decide what follows from it
                missing = steps.throw(error)
    except StopIteration as end:
        return _Result(end.value)


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
