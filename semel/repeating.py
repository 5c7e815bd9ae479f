"""A thread that does one thing again and again, and survives whatever goes wrong."""

import threading
from collections.abc import Callable

from semel.errors import SemelError
from semel.log import get_log

log = get_log("background")


class Repeating:
    """Calls `once` every so often until it is stopped.

    Args:
        name: of the thread, and in the log.
        every_s: the pause between two calls.
        at_once: do not begin with a pause.
    """

    def __init__(self, name: str, once: Callable[[], None], *, every_s: float, at_once: bool = False) -> None:
        self._name = name
        self._once = once
        self._every_s = every_s
        self._pause_s = 0.0 if at_once else every_s
        self._failing = False
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @property
    def stopping(self) -> bool:
        return self._stopping.is_set()

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Returns when the call in hand has ended, or after five seconds."""
        self._stopping.set()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        while not self._stopping.wait(self._pause_s):
            self._pause_s = self._every_s
            try:
                self._once()
                self._failing = False
            except SemelError as error:  # said once, until it works again
                if not self._failing:
                    log.warning("fails, trying again", duty=self._name, reason=str(error))
                self._failing = True
            except Exception:  # the thread's edge: it must not end
                if not self._failing:
                    log.exception("fails, trying again", duty=self._name)
                self._failing = True
