"""A value that is expensive to read and may be a little old.

`cachetools.TTLCache` and its decorator come close, but offer neither a value that another call provides
(`Roster.live` renews the value of `Roster.recently_live`) nor a time to live that depends on the cost of reading.
"""

import time
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Kept(Generic[T]):
    """One value, at most `seconds` old. Thread-safe.

    Threads that find it too old at the same moment read it concurrently: with a lock, all of them would queue behind
    a call that hangs.

    Args:
        seconds: how long a value is kept; `put` may set another time for a single value.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._value: tuple[float, T] | None = None

    @property
    def fresh(self) -> T | None:
        """The value, or None if there is none or it is too old."""
        value = self._value
        return value[1] if value is not None and time.monotonic() < value[0] else None

    def put(self, value: T, *, seconds: float | None = None) -> T:
        """Keep this value from now on, for `seconds` if given, and return it."""
        self._value = (time.monotonic() + (self._seconds if seconds is None else seconds), value)
        return value

    def get(self, read: Callable[[], T]) -> T:
        """The kept value, otherwise the result of `read`, which is then kept. Raises what `read` raises."""
        fresh = self.fresh
        return self.put(read()) if fresh is None else fresh

    def forget(self) -> None:
        """Drop the value, so that the next `get` reads it again."""
        self._value = None
