"""Jobs that have ended since somebody looked: each is told once."""

import threading
import time
from collections.abc import Iterable

from semel.tasks.jobs.counts import EndedJob, JobCounts

_OVERLAP_S = 60.0
"""A job is stamped before its transaction commits, and the clocks of hosts differ: look so far back each time."""


class EndedJobs:
    """Looks at the times on the jobs; begins with those that end from now on."""

    def __init__(self, counts: JobCounts) -> None:
        self._counts = counts
        self._from = time.time()
        self._told: dict[str, float] = {}
        self._lock = threading.Lock()

    def new(self) -> Iterable[EndedJob]:
        """Those that were not told yet. Thread-safe."""
        with self._lock:
            return self._new()

    def _new(self) -> list[EndedJob]:
        found = self._counts.ended_since(self._from)
        new = [job for job in found if self._told.get(job.id) != job.ended_at]
        horizon = time.time() - _OVERLAP_S
        self._from = max(self._from, horizon)
        self._told = {job.id: job.ended_at for job in found if job.ended_at >= horizon}
        return new
