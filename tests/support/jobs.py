"""The stores of jobs and chunks in one object, for tests that need both."""

from collections.abc import Sequence

from semel.tasks.jobs.chunks import ChunkStore
from semel.tasks.jobs.store import JobStore
from semel.tasks.jobs.sweep import Sweeper, Swept
from semel.values.text import Lane


class Jobs(JobStore, ChunkStore):
    """A job store and a chunk store on one database. It relies on the attributes that both have (`_db`)."""

    def sweep(self, *, empty_queues: Sequence[tuple[Lane, str]], resend_after_s: float, max_attempts: int) -> Swept:
        """Sweep once; see `Sweeper.sweep`."""
        sweeper = Sweeper(self._db, retention_s=self._retention_s, max_attempts=max_attempts)
        return sweeper.sweep(empty_queues=empty_queues, resend_after_s=resend_after_s)
