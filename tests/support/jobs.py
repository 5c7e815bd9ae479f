"""The stores of jobs and chunks in one object, for tests that need both, with short ways to call them."""

from collections.abc import Mapping, Sequence
from typing import Any

from semel.cache.store import VectorStore
from semel.tasks.jobs.chunks import ChunkStore
from semel.tasks.jobs.new_job import NewJob
from semel.tasks.jobs.rows import ChunkWork, Finished, Place
from semel.tasks.jobs.store import JobStore
from semel.tasks.jobs.sweep import Sweeper, Swept
from semel.tasks.jobs.turns import Window
from semel.values.job import Job
from semel.values.model import Space
from semel.values.read_counts import ReadCounts
from semel.values.text import ItemError, Lane, Outcome


class Jobs(JobStore, ChunkStore):
    """A job store and a chunk store on one database. It relies on the attributes that both have (`_db`)."""

    def sweep(self, *, empty_queues: Sequence[tuple[Lane, str]], resend_after_s: float, max_attempts: int) -> Swept:
        """Sweep once; see `Sweeper.sweep`."""
        lookup = VectorStore(self._db).lookup_on
        sweeper = Sweeper(self._db, retention_s=self._retention_s, max_attempts=max_attempts, lookup=lookup)
        return sweeper.sweep(empty_queues=empty_queues, resend_after_s=resend_after_s)

    def add(self, space: Space, **options: Any) -> Job:
        """Create a job without texts; the options are those of `NewJob`."""
        return self.create(NewJob(space=space, **options))

    def dispatch(self, *, lane: Lane, device: str, window: int, served: Sequence[bytes] | None = None) -> list[Place]:
        """Mark the next chunks as sent, and return their places."""
        return [turn[:2] for turn in self.take_for_dispatch(Window(lane, device, window, served))]

    def lease_one(self, job_id: str, position: int, *, owner: str, ttl_s: float) -> ChunkWork | None:
        """Lease one chunk; None if that is not possible."""
        return next(iter(self.lease([(job_id, position)], owner=owner, ttl_s=ttl_s)), None)

    def finish_one(
        self,
        work: ChunkWork,
        outcomes: Sequence[Outcome],
        errors: Mapping[int, ItemError],
        *,
        truncated: int,
        tokens: int,
    ) -> bool:
        """Record the outcomes of one chunk; returns whether they were recorded."""
        return self.finish([Finished(work, outcomes, errors, ReadCounts(truncated, tokens))])[0][0]
