"""What counts as hanging: a batch, or a step of loading or unloading a model, that takes far too long."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from semel.backends.submission import EngineStats

_FIRST_FACTOR = 10.0
"""A step, and the first batch, may take this many times as long as a later batch before it counts as hanging."""


@dataclass(frozen=True)
class Hang:
    """Work of the device that takes far too long.

    Attributes:
        what: the work, such as `a batch` or `loading model 'm'`.
        seconds: how long it has been running.
    """

    what: str
    seconds: float


class LoadSteps:
    """The steps that run now, each in its own thread. Any thread may call it."""

    def __init__(self) -> None:
        self._running: dict[object, tuple[float, str]] = {}  # start, what
        self._changed = threading.Lock()

    @contextmanager
    def step(self, what: str) -> Iterator[None]:
        """Run one step. Its end restarts the clocks of the others, because they may have waited for their turn."""
        key = object()
        with self._changed:
            self._running[key] = time.perf_counter(), what
        try:
            yield
        finally:
            with self._changed:
                del self._running[key]
                now = time.perf_counter()
                self._running = {other: (now, name) for other, (_, name) in self._running.items()}

    def hanging(self, *, after_s: float) -> Hang | None:
        """Return the step that has been running for longest, if that is more than ten times `after_s` seconds."""
        with self._changed:
            if not self._running:
                return None
            started, what = min(self._running.values())
        taken_s = time.perf_counter() - started
        return Hang(what, taken_s) if taken_s > _FIRST_FACTOR * after_s else None


def slow_batch(taken_s: float, padded_tokens: int, *, usual: EngineStats, after_s: float, factor: float) -> Hang | None:
    """Return a batch as hanging if it takes far longer than usual; see `Engine.hangs` for the arguments."""
    limit_s = _FIRST_FACTOR * after_s
    if usual.padded_tokens:
        limit_s = max(after_s, factor * padded_tokens * usual.busy_s / usual.padded_tokens)
    return Hang("a batch", taken_s) if taken_s > limit_s else None
