"""What the cache holds, for those who look: counted when somebody asks, and kept for a while."""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from semel.cache.space_use import SpaceUse, Totals
from semel.cache.store import Growth, SpaceStats, VectorStore

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
    """Thread-safe."""

    def __init__(self, store: VectorStore, use: SpaceUse) -> None:
        self._store = store
        self._use = use
        self._until = 0.0
        self._contents: Contents | None = None
        self._deletions = self._counted_after = 0
        self._lock = threading.Lock()

    def read(self) -> Contents:
        """A few seconds old at the most, or twenty times what counting takes; while one counts, others get the last."""
        contents = self._contents
        if not self._lock.acquire(blocking=contents is None):
            assert contents is not None  # or this would have waited
            return contents
        try:
            started, deletions = time.monotonic(), self._deletions
            if self._contents is None or started > self._until or deletions != self._counted_after:
                self._contents = self._count()
                self._counted_after = deletions  # what was deleted meanwhile may have been counted still
                now = time.monotonic()
                self._until = now + max(_KEPT_S, (now - started) * _KEPT_TIMES)
            return self._contents
        finally:
            self._lock.release()

    def forget(self) -> None:
        """Something was deleted: count again when asked."""
        self._deletions += 1

    def _count(self) -> Contents:
        spaces = self._store.stats()
        oldest = min((space.oldest_at for space in spaces if space.oldest_at), default=time.time())
        span_s = max(_SHORTEST_SPAN_S, (time.time() - oldest) / _SPANS)
        return Contents(spaces, self._store.growth(span_s=span_s), span_s, self._use.totals())
