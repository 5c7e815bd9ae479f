"""Work in steps, which stop where the cache must be read and where texts must be computed.

Who takes the steps decides how to wait at a stop: `finish` blocks its thread; the API reads the cache for many requests
at once (`semel.api.edge.joint_steps`), and its event loop waits for the answers of any number of them
(`semel.api.edge.waiting`). Steps that need other steps use `yield from`.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeAlias, TypeVar

from semel.errors import SemelError
from semel.values.model import Space
from semel.values.text import Input, Lane
from semel.values.vectors import Computed, Found

T = TypeVar("T")


class Cache(Protocol):
    """The part of `semel.cache.store.VectorStore` that steps need."""

    def get_many(self, keys: Sequence[bytes], *, dim: int) -> Found:
        """Read vectors, in the order of the keys. Raises UnavailableError."""


@dataclass(frozen=True)
class LookUp:
    """Keys that must be read before the steps can go on."""

    cache: Cache
    keys: Sequence[bytes]
    dim: int

    def read(self) -> Found:
        """Read them. Raises UnavailableError."""
        return self.cache.get_many(self.keys, dim=self.dim)


@dataclass(frozen=True)
class Missing:
    """Texts that must be computed (key → text) before the steps can go on."""

    space: Space
    texts: Mapping[bytes, Input]
    lane: Lane


Steps: TypeAlias = Generator[LookUp | Missing, Any, T]
"""Work that returns a T. It stops at a `LookUp`, for a `Found`, and at `Missing` texts, for their `Computed`."""


class Sender(Protocol):
    """Has missing texts computed, in this process or elsewhere."""

    def compute(self, space: Space, missing: Mapping[bytes, Input], *, lane: Lane) -> Computed:
        """Return when the cache has the vector of each key, or the key has failed.

        Raises:
            UnavailableError, BackendError, StorageFullError: the whole computation failed.
        """


def finish(steps: Steps[T], sender: Sender) -> T:
    """Take all steps; the sender computes in between, while this thread waits. Raises what either of them raises."""
    try:
        stop = next(steps)
        while True:
            stop = resume(steps, partial(_answer, stop, sender))
    except StopIteration as end:
        result: T = end.value
        return result


def _answer(stop: LookUp | Missing, sender: Sender) -> Found | Computed:
    return stop.read() if isinstance(stop, LookUp) else sender.compute(stop.space, stop.texts, lane=stop.lane)


def resume(steps: Steps[T], answer: Callable[[], Found | Computed]) -> LookUp | Missing:
    """Go on to the next stop with the answer, or with the error, to the last one."""
    try:
        answered = answer()
    except SemelError as error:
        return steps.throw(error)
    return steps.send(answered)
