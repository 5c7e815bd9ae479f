"""A thread that does one thing again and again, and survives whatever goes wrong."""

import threading
from collections.abc import Callable

import redis

from semel.errors import SemelError
from semel.log import get_log

log = get_log("duties")


class Repeating:
    """Calls `once` at a steady pace until it is stopped.

    An error is logged when it first happens, and again when the duty works; in between the duty is silent.

    Args:
        name: of the thread, and of the duty in the log.
        every_s: the pause between two calls.
        at_once: make the first call without a pause.
    """

    def __init__(self, name: str, once: Callable[[], object], *, every_s: float, at_once: bool = False) -> None:
        self._name = name
        self._once = once
        self._every_s = every_s
        self._pause_s = 0.0 if at_once else every_s
        self._failing = False
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @property
    def stopping(self) -> bool:
        """Whether `stop` was called."""
        return self._stopping.is_set()

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Return when the call in hand has ended, or after five seconds."""
        self._stopping.set()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        while not self._stopping.wait(self._pause_s):
            self._pause_s = self._every_s
            try:
                self._once()
            except (SemelError, redis.RedisError) as error:
                if not self._failing:
                    log.warning("duty fails, trying again", duty=self._name, reason=str(error))
                self._failing = True
            except Exception:  # the thread's edge: without it the duty would end for good
                if not self._failing:
                    log.exception("duty fails, trying again", duty=self._name)
                self._failing = True
            else:
                if self._failing:
                    log.info("duty works again", duty=self._name)
                self._failing = False
