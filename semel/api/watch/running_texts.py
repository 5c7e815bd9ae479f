"""Texts that are done in chunks that are still running: the counts of their jobs do not include them yet."""

from collections import Counter
from collections.abc import Collection

from semel.errors import UnavailableError
from semel.tasks.fleet.roster import Roster
from semel.tasks.jobs.parts import JobParts


class RunningTexts:
    """Counts them, as workers reported through Redis within the last two seconds."""

    def __init__(self, parts: JobParts, roster: Roster) -> None:
        self._parts = parts
        self._roster = roster

    def by_job(self, job_ids: Collection[str] | None = None) -> Counter[str]:
        """Job id → texts.

        Call it after the counts of the jobs were read: a chunk that ends in between then never counts twice.

        Args:
            job_ids: only these jobs; None for all.
        """
        try:
            cards = self._roster.recently_live()
        except UnavailableError:  # a job can be read without Redis; nothing was reported
            return Counter()
        reported = [
            (job_id, position, texts)
            for card in cards
            for job_id, position, texts in card.progress
            if job_ids is None or job_id in job_ids
        ]
        done = Counter[str]()
        if not reported:
            return done
        running = self._parts.running({(job_id, position) for job_id, position, _ in reported})
        for job_id, position, texts in reported:
            if (job_id, position) in running:
                done[job_id] += texts
        return done
