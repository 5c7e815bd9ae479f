"""A call that another thread runs while the caller waits."""

import threading
from collections.abc import Callable

from semel.errors import BackendError


class Call:
    """A function that one thread runs and another waits for.

    Args:
        function: takes nothing; whatever it raises reaches the thread that waits.
    """

    def __init__(self, function: Callable[[], None]) -> None:
        self._function = function
        self._done = threading.Event()
        self._error: Exception | None = None

    def run(self) -> None:
        """Run the function."""
        try:
            self._function()
        except BaseException as error:  # noqa: BLE001  # raised again in the thread that waits
            ended = BackendError(f"it ended with {type(error).__name__}: {error}")
            self._error = error if isinstance(error, Exception) else ended
        self._done.set()

    def run_aside(self, name: str) -> None:
        """Run the function in a new thread and wait for it; the per-thread state of frameworks ends with the thread.

        The process does not end before the thread does: frameworks crash when their memory is freed under them.

        Raises what the function raised.
        """
        threading.Thread(target=self.run, name=name, daemon=False).start()
        self.wait()

    def fail(self, error: Exception) -> None:
        """Let the waiting thread raise `error`; the function is not run."""
        self._error = error
        self._done.set()

    def wait(self) -> None:
        """Wait until the function has ended. Raises what it raised, or what `fail` was given."""
        self._done.wait()
        if self._error is not None:
            raise self._error
