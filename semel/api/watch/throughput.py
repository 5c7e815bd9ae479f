"""Texts per second by outcome over the last minutes, for charts without Prometheus."""

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from semel.tasks.fleet.card import WorkerCard
from semel.tasks.fleet.meter import Work

_KEPT = 450
"""Points: a quarter of an hour, at one point every two seconds."""


@dataclass(frozen=True)
class Point:
    """Texts per second by outcome at the time `at` (Unix seconds)."""

    at: float
    hit: float
    computed: float
    coalesced: float
    failed: float


class Throughput:
    """Rates from the counters of the live workers, and of this API for texts that need no worker."""

    def __init__(self) -> None:
        self._points: deque[Point] = deque(maxlen=_KEPT)
        self._before: tuple[float, int] | None = None
        self._work: dict[str, Work] = {}

    def sample(self, cards: Sequence[WorkerCard], *, hits_here: int) -> None:
        """Add a point; to be called at a steady pace.

        Args:
            hits_here: texts that this API has answered from the cache since it started.
        """
        now = time.time()
        if self._before is not None:
            then, hits_then = self._before
            passed_s = max(now - then, 0.1)
            grown = {"hit": hits_here - hits_then, "computed": 0, "coalesced": 0, "failed": 0}
            for card in cards:
                counted = card.work
                # A worker that was away for a while continues from its last counts. One that is seen for the first
                # time but started before `then` adds nothing: its work may be older.
                earlier = self._work.get(card.id, Work() if card.started_at > then else counted)
                grown["hit"] += counted.hits - earlier.hits
                grown["computed"] += counted.computed - earlier.computed
                grown["coalesced"] += counted.coalesced - earlier.coalesced
                grown["failed"] += counted.failed - earlier.failed
            self._points.append(Point(now, **{name: max(0.0, n / passed_s) for name, n in grown.items()}))
        self._before = (now, hits_here)
        self._work.update((card.id, card.work) for card in cards)
        for worker_id in list(self._work)[:-_KEPT]:
            del self._work[worker_id]

    def last(self) -> dict[str, float] | None:
        """The newest point, as in `as_plain`; None before the first."""
        points = list(self._points)
        return _plain(points[-1]) if points else None

    def as_plain(self) -> list[dict[str, float]]:
        """All points, ready for JSON, the oldest first."""
        return [_plain(point) for point in list(self._points)]  # another thread may add one meanwhile


def _plain(point: Point) -> dict[str, float]:
    return {name: round(value, 3) for name, value in asdict(point).items()}
