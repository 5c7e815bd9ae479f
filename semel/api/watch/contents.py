"""What the cache holds, for those who look: counted when somebody asks, and kept for a while."""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from semel.cache.space_use import SpaceUse, Totals
from semel.cache.stats import CacheStats, Growth, SpaceStats
from semel.kept import Kept

_KEPT_S = 5.0
_KEPT_TIMES = 20.0
"""Counting reads the size of every vector: at the most a twentieth of a core goes there."""

_SPANS = 60
_SHORTEST_SPAN_S = 60.0


@dataclass(frozen=True)
class Contents:
    """Spaces with vectors, the largest first, and their vectors by when they came, in spans of `span_s`.

    `totals` are of all spaces, those without vectors, too.
    """

    spaces: Sequence[SpaceStats]
    growth: Sequence[Growth]
    span_s: float
    totals: Totals


class CacheContents:
    """Counts the cache when somebody asks. Thread-safe."""

    def __init__(self, stats: CacheStats, use: SpaceUse) -> None:
        self._stats = stats
        self._use = use
        self._kept: Kept[Contents] = Kept(_KEPT_S)
        self._last: Contents | None = None
        self._deletions = 0
        self._lock = threading.Lock()

    def read(self) -> Contents:
        """At most a few seconds old, or twenty times as old as counting takes.

        While one thread counts, the others get the last result.
        """
        if (kept := self._kept.fresh) is not None:
            return kept
        last = self._last
        if not self._lock.acquire(blocking=last is None):
            assert last is not None  # or this would have waited
            return last
        try:
            return self._kept.fresh or self._count()
        finally:
            self._lock.release()

    def forget(self) -> None:
        """Something was deleted: count again when asked."""
        self._deletions += 1
        self._kept.forget()

    def _count(self) -> Contents:
        started, deletions = time.monotonic(), self._deletions
        spaces = self._stats.by_space()
        oldest = min((space.oldest_at for space in spaces if space.oldest_at), default=time.time())
        span_s = max(_SHORTEST_SPAN_S, (time.time() - oldest) / _SPANS)
        self._last = Contents(spaces, self._stats.growth(span_s=span_s), span_s, self._use.totals())
        self._kept.put(self._last, seconds=max(_KEPT_S, (time.monotonic() - started) * _KEPT_TIMES))
        if deletions != self._deletions:
            self._kept.forget()  # what was deleted meanwhile may still have been counted
        return self._last
