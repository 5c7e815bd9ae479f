"""The steps of many requests at once: those that arrive together share a thread and their look-ups in the cache."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from functools import partial
from typing import Generic, TypeAlias, TypeVar

from semel.errors import SemelError
from semel.steps import Cache, LookUp, Missing, Steps, resume
from semel.tasks.queue.sender import QueueSender, Sent
from semel.together import Together
from semel.values.vectors import Found

T = TypeVar("T")

_MOST = 64
"""Requests whose steps are taken together."""

_THREADS = 2
"""One reads the cache while the other runs Python."""


@dataclass(frozen=True)
class Result(Generic[T]):
    """What the steps returned."""

    value: T


@dataclass
class Walk(Generic[T]):
    """The steps of a request, and the texts for whose answers they wait.

    The steps always run in the context of their request, whichever thread takes them: its trace and its log lines
    depend on that.
    """

    steps: Steps[T]
    sent: Sent | None = None
    context: Context = field(default_factory=copy_context)


_Stop: TypeAlias = LookUp | Missing | Result[T] | Exception


class JointSteps:
    """Takes the steps of requests up to the next texts that workers must compute. Thread-safe.

    Args:
        sender: has missing texts computed.
    """

    def __init__(self, sender: QueueSender) -> None:
        self._sender = sender
        self._together = Together[Walk[object], "Sent | Result[object]"](
            "steps", self.take, most=_MOST, threads=_THREADS
        )

    def submit(self, walk: Walk[T]) -> "Future[Sent | Result[T]]":
        """Take the steps of a small request; the future's errors are theirs."""
        return self._together.submit(walk)  # type: ignore[arg-type, return-value]  # the result of its own steps

    def close(self) -> None:
        """Take the steps that were submitted, then stop."""
        self._together.close()

    def take(self, walks: Sequence[Walk[T]]) -> "list[Sent | Result[T] | Exception]":
        """Take the steps of each request to its next missing texts, which are sent, or to its end.

        It raises nothing: steps that have begun cannot run again.
        """
        ends: list[Sent | Result[T] | Exception | None] = [None] * len(walks)
        stops = {i: _go_on(walk) for i, walk in enumerate(walks)}
        while stops:
            following: dict[int, _Stop[T]] = {}
            for i, answer in self._look_up({i: stop for i, stop in stops.items() if isinstance(stop, LookUp)}).items():
                following[i] = _advance(walks[i], partial(resume, walks[i].steps, answer))
            for i, stop in stops.items():
                if isinstance(stop, Missing):
                    end = self._send(walks[i], stop)
                    if isinstance(end, Sent):
                        ends[i] = end
                    else:
                        following[i] = end
                elif not isinstance(stop, LookUp):
                    ends[i] = stop
            stops = following
        return [end for end in ends if end is not None]

    def _look_up(self, stops: dict[int, LookUp]) -> dict[int, Callable[[], Found]]:
        """The answer to each look-up; the call raises if the cache could not be read."""
        groups: dict[tuple[Cache, int], list[int]] = defaultdict(list)
        for i, stop in stops.items():
            groups[stop.cache, stop.dim].append(i)
        answers: dict[int, Callable[[], Found]] = {}
        for (cache, dim), members in groups.items():
            joint = LookUp(cache, [key for i in members for key in stops[i].keys], dim)
            try:
                found = joint.read()
            except Exception as error:  # noqa: BLE001  # each request receives it
                answers.update((i, partial(_fail, error)) for i in members)
                continue
            at = 0
            for i in members:
                answers[i] = partial(found.part, slice(at, at + len(stops[i].keys)))
                at += len(stops[i].keys)
        return answers

    def _send(self, walk: Walk[T], missing: Missing) -> "Sent | _Stop[T]":
        try:
            return walk.context.run(self._sender.begin, missing.space, missing.texts, lane=missing.lane)
        except SemelError as error:  # the steps decide what follows from it
            return _advance(walk, partial(walk.steps.throw, error))


def _go_on(walk: Walk[T]) -> _Stop[T]:
    """Begin the steps, or continue them with the answers to the texts that were sent."""
    sent = walk.sent
    return _advance(walk, partial(next, walk.steps) if sent is None else partial(resume, walk.steps, sent.result))


def _advance(walk: Walk[T], step: Callable[[], LookUp | Missing]) -> _Stop[T]:
    try:
        return walk.context.run(step)
    except StopIteration as end:
        return Result(end.value)
    except Exception as error:  # noqa: BLE001  # it is raised again where the request waits
        return error


def _fail(error: Exception) -> Found:
    raise error
