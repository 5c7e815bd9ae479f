"""The thread that runs batches: validate, submit as jobs, wait, write the output.

Each step can be repeated from its start, so another process continues a batch whose process died.
"""

import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import asdict

from semel.api.batch.lines import LineProblemError, default_model, raw_lines, read_line, request_of
from semel.api.batch.output import OutputWriter, Place, place_of
from semel.api.jobs.ingest import JobIngest
from semel.api.jobs.submission import create, job_ingest
from semel.api.jobs.wire import JobRequest
from semel.api.services import Services
from semel.api.tenants import Tenants
from semel.errors import (
    BadInputError,
    ConflictError,
    NotFoundError,
    OverloadedError,
    SemelError,
    StorageFullError,
    UnavailableError,
)
from semel.log import get_log
from semel.repeating import Repeating
from semel.tasks.jobs.batches import Batch, LineError
from semel.tracing import span
from semel.values.job import Job, JobStatus
from semel.values.text import ItemError, Lane

log = get_log("batches")

_POLL_S = 0.25
_SWEEP_S = 60.0

_RENEWAL_S = 2.0
"""How often the lease is renewed and a stop is noticed."""

_PAUSE_S = 5.0
"""How long a batch waits after an outage before it is tried again."""

_MAX_ERRORS = 100
"""Errors reported for one batch."""


class _StoppedError(Exception):
    """This process is stopping, or another one has taken over the batch."""


class BatchRunner:
    """Runs all batches of this process in one thread."""

    def __init__(self, services: Services) -> None:
        self._services, self._tenants = services, Tenants(services)
        self._owner = uuid.uuid4().hex
        self._swept = self._renewed = 0.0
        self._paused: dict[str, float] = {}
        self._poll = Repeating("batches", self._once, every_s=_POLL_S)

    def start(self) -> None:
        """Start the thread."""
        self._poll.start()

    def stop(self) -> None:
        """Stop the thread and free the leases, so that another process continues these batches at once."""
        self._poll.stop()
        try:
            self._services.stores.batches.give_back(owner=self._owner)
        except SemelError as error:
            log.warning("batch leases not released, they end within seconds", reason=str(error))

    def _once(self) -> None:
        if time.monotonic() - self._swept > _SWEEP_S:
            self._swept = time.monotonic()
            self._services.stores.files.sweep()
            self._services.stores.uploads.sweep()
            self._services.stores.batches.sweep(retention_s=self._services.settings.job_retention_s)
        for batch in self._services.stores.batches.lease(owner=self._owner):
            if time.monotonic() < self._paused.get(batch.id, 0.0):
                continue
            try:
                self._advance(batch)
            except _StoppedError:
                continue
            except (OverloadedError, StorageFullError, UnavailableError) as error:
                pause_s = error.retry_after_s if isinstance(error, OverloadedError) else _PAUSE_S
                self._paused[batch.id] = time.monotonic() + pause_s
                log.info("batch waits", batch=batch.id, reason=str(error), seconds=round(pause_s))
            except SemelError as error:
                log.error("batch failed", batch=batch.id, reason=str(error))
                self._services.stores.batches.fail(batch.id, [LineError(error.code, str(error))], owner=self._owner)
            except Exception as error:  # the thread's edge: an unforeseen error ends one batch, not the thread
                log.exception("batch failed", batch=batch.id)
                problem = LineError("internal_error", f"{type(error).__name__}: {error}")
                self._services.stores.batches.fail(batch.id, [problem], owner=self._owner)

    def _advance(self, batch: Batch) -> None:
        late = self._services.stores.db.now() > batch.expires_at
        if batch.status is JobStatus.VALIDATING:
            if late:
                self._services.stores.batches.end(batch.id, JobStatus.EXPIRED, owner=self._owner)
            else:
                with span("semel.submit", batch=batch.id):
                    self._submit(batch)
            return
        if batch.in_progress_at is None:  # cancelled before its lines were submitted: there is nothing to write
            self._services.stores.batches.end(batch.id, JobStatus.CANCELLED, owner=self._owner)
            return
        jobs = self._jobs(batch)
        if batch.status is JobStatus.CANCELLING or late:
            self._cancel(jobs)
            jobs = self._jobs(batch)
        if all(job.status.ended for job in jobs.values()):
            self._write(batch, jobs, late=late)
        else:
            self._record_progress(batch, jobs)

    def _jobs(self, batch: Batch) -> dict[Place, Job]:
        found = {}
        for job_id in batch.jobs:
            try:
                job = self._services.stores.jobs.get(job_id)
            except NotFoundError:  # deleted by hand: its lines are reported as not done
                continue
            found[place_of(job)] = job
        return found

    def _cancel(self, jobs: Mapping[Place, Job]) -> None:
        for job in jobs.values():
            try:
                self._services.stores.jobs.cancel(job.id)
            except ConflictError:  # it has already ended
                continue

    # From lines to jobs

    def _submit(self, batch: Batch) -> None:
        try:
            model, total, errors = self._validate(batch)
        except LineProblemError as problem:  # a line so long that reading cannot continue after it
            model, total, errors = "", 0, [problem.line]
        if errors:
            self._services.stores.batches.refuse(batch.id, errors, owner=self._owner)
            return
        self._services.fleet.backlog.check(
            Lane.BULK, self._services.fleet.router.route(self._services.stores.catalog.space(model)).device
        )
        ingests: dict[Place, JobIngest] = {}
        try:
            for number, raw in self._lines(batch):
                self._feed(batch, number, raw, ingests)
                self._renew_lease(batch)
            jobs = [ingest.finish() for ingest in ingests.values()]
        except BaseException as error:  # the batch starts again, or fails: these jobs have no owner
            reason = ItemError("batch_stopped", f"batch {batch.id} was stopped while it was being submitted: {error}")
            for ingest in ingests.values():
                self._services.stores.jobs.fail(ingest.job.id, reason)
                self._services.stores.jobs.delete(ingest.job.id)
            raise
        inputs = sum(job.total for job in jobs)
        ids = [job.id for job in jobs]
        started = self._services.stores.batches.start(
            batch.id, model=model, total=total, inputs=inputs, jobs=ids, owner=self._owner
        )
        if not started:  # cancelled meanwhile
            self._cancel({place_of(job): job for job in jobs})

    def _lines(self, batch: Batch) -> Iterator[tuple[int, bytes]]:
        path = self._services.stores.files.path(batch.input_file_id)
        return raw_lines(path, max_bytes=self._services.settings.max_body_bytes)

    def _validate(self, batch: Batch) -> tuple[str, int, list[LineError]]:
        """The model, the number of lines, and the errors: nothing is computed before all lines are valid."""
        errors, seen = list[LineError](), set[str]()
        model, total, limit = "", 0, self._services.settings.max_batch_lines
        default = default_model(self._services, batch.endpoint)
        for number, raw in self._lines(batch):
            self._renew_lease(batch)
            total += 1
            if total > limit:
                return model, total, [LineError("too_many_lines", f"a batch has at most {limit} lines")]
            try:
                line = read_line(number, raw, endpoint=batch.endpoint)
            except LineProblemError as problem:
                errors.append(problem.line)
                continue
            line_model = line.body.get("model") or default
            model = model or line_model
            errors += _conflicts(line.custom_id, line_model, number, seen=seen, model=model)
            seen.add(line.custom_id)
            if len(errors) >= _MAX_ERRORS:
                break
        if not total:
            errors.append(LineError("empty_file", "the input file has no lines"))
        if not errors:
            try:
                self._services.stores.catalog.space(model)
            except BadInputError as error:
                errors.append(LineError(error.code, str(error), line=1, param="body.model"))
        return model, total, errors[:_MAX_ERRORS]

    def _feed(self, batch: Batch, number: int, raw: bytes, ingests: dict[Place, JobIngest]) -> None:
        line, services = read_line(number, raw, endpoint=batch.endpoint), self._of(batch)
        try:
            request = request_of(services, batch.endpoint, line)
        except BadInputError:  # reported when the output is written, where it is raised again
            return
        for space, item in request.inputs:
            place = place_of(space)
            if any(ingest.space.weights != space.weights for ingest in ingests.values()):
                raise UnavailableError(f"the weights of {space.model!r} changed while the batch was being submitted")
            if place not in ingests:
                origin = {"origin": "batch", "batch": batch.id}
                prompt = {"prompt_name": space.prompt_name} if space.prompt_name else {"input_type": "none"}
                fields = {"model": space.model, **prompt, **asdict(space.variant)}
                options = JobRequest(input=[], metadata=origin, **fields)
                ingests[place] = job_ingest(services, create(services, options, batch.submitter))
            ingests[place].add(item)

    def _of(self, batch: Batch) -> Services:
        return self._tenants.view(batch.submitter, sees_all=True)

    def _renew_lease(self, batch: Batch) -> None:
        """Renew the lease if it is time; called after each line. Raises _StoppedError."""
        if time.monotonic() - self._renewed < _RENEWAL_S:
            return
        self._renewed = time.monotonic()
        if self._poll.stopping or not self._services.stores.batches.renew(batch.id, owner=self._owner):
            raise _StoppedError

    # From jobs to files

    def _record_progress(self, batch: Batch, jobs: Mapping[Place, Job]) -> None:
        """Record how many lines are done; an estimate if lines have several inputs, until the output is written."""
        done = sum(job.counts.done - job.counts.failed for job in jobs.values())
        failed = sum(job.counts.failed for job in jobs.values())
        scale = batch.total / max(batch.inputs, 1)
        completed, failed = int(done * scale), int(failed * scale)
        if (completed, failed) != (batch.completed, batch.failed):
            self._services.stores.batches.progress(batch.id, completed=completed, failed=failed, owner=self._owner)

    def _write(self, batch: Batch, jobs: Mapping[Place, Job], *, late: bool) -> None:
        services, cancelled = self._of(batch), batch.status is JobStatus.CANCELLING
        if batch.status is JobStatus.IN_PROGRESS and not services.stores.batches.finalize(batch.id, owner=self._owner):
            return  # cancelled meanwhile
        writer = OutputWriter(services, batch, jobs, why_undone=_why_undone(jobs, late=late, cancelled=cancelled))
        with services.stores.files.writing() as output, services.stores.files.writing() as errors:
            written = writer.write(output, errors, after_line=lambda: self._renew_lease(batch))
            if cancelled:
                status = JobStatus.CANCELLED
            else:
                status = JobStatus.EXPIRED if late and written.undone else JobStatus.COMPLETED
            file_ids = {}
            for kind, file in (("output", output), ("error", errors)):
                if file.tell():
                    name = f"{batch.id}_{kind}.jsonl"
                    file_ids[f"{kind}_file_id"] = services.stores.files.add(
                        file,
                        purpose="batch_output",
                        filename=name,
                        expires_s=batch.output_expires_s,
                        submitter=batch.submitter,
                    ).id
        ended = services.stores.batches.end(
            batch.id,
            status,
            owner=self._owner,
            completed=written.completed,
            failed=written.failed,
            input_tokens=written.input_tokens,
            cached_tokens=written.cached_tokens,
            **file_ids,
        )
        if not ended:
            for file_id in file_ids.values():  # another process has taken over and writes its own files
                services.stores.files.delete(file_id)


def _conflicts(custom_id: str, line_model: str, number: int, *, seen: set[str], model: str) -> list[LineError]:
    """What is wrong with a line in view of the lines before it."""
    errors = []
    if custom_id in seen:
        message = f"line {number}: custom_id {custom_id!r} is already used in an earlier line"
        errors.append(LineError("duplicate_custom_id", message, line=number, param="custom_id"))
    if line_model != model:
        message = f"line {number}: body.model is {line_model!r}, but earlier lines use {model!r}; a batch has one model"
        errors.append(LineError("mismatched_model", message, line=number, param="body.model"))
    return errors


def _why_undone(jobs: Mapping[Place, Job], *, late: bool, cancelled: bool) -> ItemError:
    if cancelled:
        return ItemError("batch_cancelled", "the batch was cancelled before this request was done")
    if late:
        return ItemError("batch_expired", "the completion window of the batch ended before this request was done")
    error = next((job.error for job in jobs.values() if job.error), None)
    return error or ItemError("job_lost", "the job of this request was cancelled or deleted by hand")
