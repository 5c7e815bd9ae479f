"""A thread that repeats one duty and survives every error."""

import threading
from collections.abc import Callable

import redis

from semel.errors import SemelError
from semel.log import get_log

log = get_log("duties")


class Repeating:
    """Calls `once` at a steady pace until it is stopped.

    The log records the first of several errors in a row and the recovery, and nothing in between.

    Args:
        name: the name of the thread, and of the duty in the log.
        once: the duty.
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
        """Make no further call, and return when the current one has ended, at most five seconds later."""
        self._stopping.set()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        while not self._stopping.wait(self._pause_s):
            self._pause_s = self._every_s
            try:
                self._once()
            except (SemelError, redis.RedisError) as error:
                if not self._failing:
                    log.warning("duty failed, will retry", duty=self._name, reason=str(error))
                self._failing = True
            except Exception:  # the edge of the thread: without it, one error would end the duty permanently
                if not self._failing:
                    log.exception("duty failed, will retry", duty=self._name)
                self._failing = True
            else:
                if self._failing:
                    log.info("duty recovered", duty=self._name)
                self._failing = False
