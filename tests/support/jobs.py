"""Everything that can happen to the rows of a job, in one object."""

from collections.abc import Sequence

from semel.tasks.jobs.chunks import ChunkStore
from semel.tasks.jobs.store import JobStore
from semel.tasks.jobs.sweep import Sweeper, Swept
from semel.values.text import Lane


class Jobs(JobStore, ChunkStore):
    """The stores of jobs and of chunks on one database; both keep it under the same names."""

    def sweep(self, *, empty_queues: Sequence[tuple[Lane, str]], resend_after_s: float, max_attempts: int) -> Swept:
        sweeper = Sweeper(self._db, retention_s=self._retention_s, max_attempts=max_attempts)
        return sweeper.sweep(empty_queues=empty_queues, resend_after_s=resend_after_s)
