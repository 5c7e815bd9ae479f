"""Jobs that have ended since the last look; each end is reported once."""

import threading
from collections.abc import Iterable

from semel.tasks.jobs.counts import EndedJob, JobCounts

_OVERLAP_S = 60.0
"""How far back each look goes: a job gets its end time before its transaction commits, and hosts' clocks differ."""


class EndedJobs:
    """Finds ended jobs by their end times, beginning with those that end from now on. Thread-safe."""

    def __init__(self, counts: JobCounts) -> None:
        self._counts = counts
        self._from = counts.now()
        self._reported: dict[str, float] = {}
        self._lock = threading.Lock()

    def new(self) -> Iterable[EndedJob]:
        """The jobs whose end was not reported yet; a job that ended again after a retry is reported again."""
        with self._lock:
            return self._new()

    def _new(self) -> list[EndedJob]:
        found = self._counts.ended_since(self._from)
        new = [job for job in found if self._reported.get(job.id) != job.ended_at]
        horizon = self._counts.now() - _OVERLAP_S
        self._from = max(self._from, horizon)
        self._reported = {job.id: job.ended_at for job in found if job.ended_at >= horizon}
        return new
