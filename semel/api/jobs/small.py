"""Small jobs: submissions that fit into one chunk. Those that arrive together share a transaction and a message."""

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace

from semel.api.jobs.ingest import cutter
from semel.api.jobs.submission import as_new_job
from semel.api.jobs.wire import JobRequest
from semel.api.services import Services
from semel.errors import BadInputError, SemelError
from semel.log import get_log
from semel.tasks.jobs.idempotency import Reservation
from semel.tasks.jobs.rows import NewChunk
from semel.tasks.jobs.small import SmallJob, SmallJobs
from semel.together import Together
from semel.tracing import traceparent
from semel.values.job import Job, Submitter
from semel.values.model import Space

log = get_log("api")

_MOST = 64
"""Jobs in one transaction."""


@dataclass(frozen=True)
class _Submission:
    """A request, who sends it, the `traceparent` of its span, and the reservation of its idempotency key."""

    request: JobRequest
    submitter: Submitter
    traceparent: str | None
    reservation: Reservation | None


class SmallSubmissions:
    """Creates small jobs from requests; each is complete when its future is done."""

    def __init__(self, services: Services) -> None:
        self._services = services
        stores, settings = services.stores, services.settings
        self._jobs = SmallJobs(
            stores.db,
            window_s=settings.job_window_s,
            retention_s=settings.job_retention_s,
            lookup=stores.vectors.lookup_on,
        )
        self._together = Together[_Submission, Job | None]("small jobs", self._create, most=_MOST)

    def submit(
        self, request: JobRequest, *, submitter: Submitter, reservation: Reservation | None = None
    ) -> "Future[Job | None]":
        """Create the job, or None if its texts do not fit into one chunk.

        The future's errors: whatever `semel.api.jobs.submission.create` raises, and BadInputError for its rows.
        """
        return self._together.submit(_Submission(request, submitter, traceparent(), reservation))

    def close(self) -> None:
        """Create what has been submitted, then stop."""
        self._together.close()

    def _create(self, requests: Sequence[_Submission]) -> list[Job | Exception | None]:
        results: list[Job | Exception | None] = [None] * len(requests)
        small: list[tuple[int, SmallJob]] = []
        self._services.fleet.ping()  # refuse now, with the reason, rather than accept jobs that cannot start
        for i, submission in enumerate(requests):
            try:
                if (one := self._small(submission)) is not None:
                    small.append((i, one))
            except SemelError as error:
                results[i] = error
        for (i, _), job in zip(small, self._store([one for _, one in small]), strict=True):
            results[i] = job
        return results

    def _small(self, submission: _Submission) -> SmallJob | None:
        request = submission.request
        new = as_new_job(self._services, request, submission.submitter)
        chunk = self._chunk(request, new.space)
        if chunk is None:
            return None
        new = replace(new, traceparent=submission.traceparent)
        return SmallJob(new, chunk, request.webhook_url, submission.reservation)

    def _chunk(self, request: JobRequest, space: Space) -> NewChunk | None:
        """The texts of a request; None if they do not fit into one chunk."""
        if not request.input:
            raise BadInputError("input is an empty list; send at least one text")
        cut = cutter(
            self._services.settings,
            space,
            key_base=space.key_base,
            text_field=request.text_field,
            strict=request.strict,
        )
        for i, row in enumerate(request.input):
            if isinstance(row, dict):
                cut.add_row(row, f"input[{i}]")
            else:
                cut.add(row)
        if cut.why_unusable is not None:
            raise BadInputError(cut.why_unusable)
        chunks = cut.take_rest()
        return chunks[0] if len(chunks) == 1 else None

    def _store(self, small: Sequence[SmallJob]) -> list[Job]:
        if not small:
            return []
        fleet, metrics = self._services.fleet, self._services.watch.metrics
        queues = dict.fromkeys((one.new.lane, one.new.device) for one in small)
        windows = [fleet.dispatcher.window(lane, device) for lane, device in queues]
        jobs, added, turns = self._jobs.submit(small, windows)
        for window, turn in zip(windows, turns, strict=True):
            try:
                fleet.dispatcher.send(window, turn)
            except Exception:  # the jobs exist: an error would create them again
                log.exception("messages of small jobs not sent, the next sweep sends them again")
        for one, more in zip(small, added, strict=True):
            metrics.ingested(one.new.space, len(one.chunk.keys) - len(one.chunk.errors), more)
        return jobs
