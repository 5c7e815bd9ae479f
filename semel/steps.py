"""Work in steps, which stop where texts must be computed.

Who takes the steps decides how to wait at a stop: `finish` blocks its thread, and the API's event loop waits for the
answers of any number of requests at once (`semel.api.edge.waiting`). Steps that need other steps use `yield from`.
"""

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeAlias, TypeVar

from semel.errors import SemelError
from semel.values.model import Space
from semel.values.text import Input, Lane
from semel.values.vectors import Computed

T = TypeVar("T")


@dataclass(frozen=True)
class Missing:
    """Texts that must be computed (key → text) before the steps can go on."""

    space: Space
    texts: Mapping[bytes, Input]
    lane: Lane


Steps: TypeAlias = Generator[Missing, Computed, T]
"""Work that stops where texts must be computed, goes on with their outcomes, and returns a T."""


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
        missing = next(steps)
        while True:
            missing = resume(steps, lambda now=missing: sender.compute(now.space, now.texts, lane=now.lane))  # type: ignore[misc]
    except StopIteration as end:
        result: T = end.value
        return result


def resume(steps: Steps[T], computed: Callable[[], Computed]) -> Missing:
    """Go on to the next stop with the outcomes, or with the error, of the texts that were missing at the last one."""
    try:
        outcomes = computed()
    except SemelError as error:
        return steps.throw(error)
    return steps.send(outcomes)
