"""What the cache holds, for the cache view and the metrics: counted on request, and kept for a while."""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from semel.cache.space_use import SpaceUse, Totals
from semel.cache.stats import CacheStats, Growth, SpaceStats
from semel.kept import Kept

_KEPT_S = 5.0
_KEPT_FACTOR = 20.0
"""A count is kept for 20 times as long as it took, because it reads the size of every vector: at most a twentieth of
a core is spent on counting."""

_SPANS = 60
_SHORTEST_SPAN_S = 60.0


@dataclass(frozen=True)
class Contents:
    """What the cache held when it was counted.

    Attributes:
        spaces: spaces with vectors, the largest first.
        growth: their vectors by the time when they were stored, in spans of `span_s`.
        totals: look-ups in all spaces, including those without vectors.
    """

    spaces: Sequence[SpaceStats]
    growth: Sequence[Growth]
    span_s: float
    totals: Totals


class CacheContents:
    """Counts the cache on request. Thread-safe."""

    def __init__(self, stats: CacheStats, use: SpaceUse) -> None:
        self._stats = stats
        self._use = use
        self._kept: Kept[Contents] = Kept(_KEPT_S)
        self._last: Contents | None = None
        self._deletions = 0
        self._lock = threading.Lock()

    def read(self) -> Contents:
        """The contents, at most as old as the larger of five seconds and twenty times the time that counting takes.

        While one thread counts, the others receive the last result.
        """
        if (kept := self._kept.fresh) is not None:
            return kept
        last = self._last
        if not self._lock.acquire(blocking=last is None):
            assert last is not None  # otherwise `acquire` would have waited
            return last
        try:
            return self._kept.fresh or self._count()
        finally:
            self._lock.release()

    def forget(self) -> None:
        """Discard the last count because vectors were deleted."""
        self._deletions += 1
        self._kept.forget()

    def _count(self) -> Contents:
        started, deletions = time.monotonic(), self._deletions
        spaces = self._stats.by_space()
        oldest = min((space.oldest_at for space in spaces if space.oldest_at), default=time.time())
        span_s = max(_SHORTEST_SPAN_S, (time.time() - oldest) / _SPANS)
        self._last = Contents(spaces, self._stats.growth(span_s=span_s), span_s, self._use.totals())
        self._kept.put(self._last, seconds=max(_KEPT_S, (time.monotonic() - started) * _KEPT_FACTOR))
        if deletions != self._deletions:
            self._kept.forget()  # vectors deleted meanwhile may still have been counted
        return self._last
