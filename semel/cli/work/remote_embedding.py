"""Embed through a server, as a job that the same command resumes after an interruption (`semel embed --url`)."""

import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from semel.cli.work.embedding import (
    EmbeddedBlock,
    EmbedOptions,
    Summary,
    model_here,
    read_source,
    spread,
    write_blocks,
)
from semel.cli.work.outputs import read_record_batches
from semel.cli.work.progress import progress_line
from semel.client import Client, RemoteJob
from semel.errors import BadInputError, NotFoundError, SemelError
from semel.rows import Item
from semel.settings import Settings
from semel.values.job import Counts, JobStatus
from semel.values.read_counts import ReadCounts
from semel.values.result_columns import ResultColumns
from semel.values.text import Outcome
from semel.values.vectors import empty_rows


def embed_remote(settings: Settings, options: EmbedOptions) -> Summary:
    """Embed through the server at `settings.url`. A job that Ctrl-C left running is resumed.

    Raises:
        BadInputError: the input or an option cannot be used, the input changed meanwhile, or Ctrl-C ended the wait.
        UnavailableError: the server does not answer.
        SemelError: the job did not complete.
    """
    started = time.perf_counter()
    with Client(settings.url) as client:
        if options.chunk:
            options = replace(options, model=_model_with_tokenizer_here(client, settings, options))
        ticket = _Ticket(options)
        job, digest = ticket.find_job(client) or _submit(client, settings, options)
        ticket.write(job.id, digest)
        try:
            job = _wait(client, job)
        except KeyboardInterrupt:
            raise BadInputError(
                f"stopped waiting, but job {job.id} continues: run the same command again to fetch its results, or "
                f"'semel jobs cancel {job.id}' to end it"
            ) from None
        ticket.delete()
        if job.status is not JobStatus.COMPLETED:
            raise SemelError(f"job {job.id} ended as {job.status}: {job.error.message if job.error else 'no reason'}")
        with client.results_stream(job.id, fmt="arrow") as parts:
            columns = ResultColumns(job.kind, job.dimensions, tuple(job.labels))
            blocks = _remote_blocks(parts, read_source(settings, options), columns, digest=digest)
            summary = write_blocks(options, blocks, columns, label="fetching vectors")
        summary.read = job.counts.read
        summary.fetching_s, summary.seconds = summary.seconds, time.perf_counter() - started
        return summary


def _model_with_tokenizer_here(client: Client, settings: Settings, options: EmbedOptions) -> str:
    """The name of the server's model, whose tokenizer splits the texts in this process.

    Raises:
        BadInputError: the model of this name has other files here.
        UnknownModelError, ModelLoadError: it is not configured here, or its files are not on this machine.
    """
    served = client.models()
    asked = next(
        (model for model in served if model.id == options.model or (not options.model and model.default)), None
    )
    name = asked.id if asked else options.model or settings.default_model
    source = model_here(settings, replace(options, model=name))
    if asked and source.described.spec.fingerprint.hex() != asked.fingerprint:
        raise BadInputError(
            f"--chunk splits texts here, with the tokenizer of {name!r}, but the server's {name!r} has other files; "
            "give both the same source in semel.toml, or run the command on the server's machine with --local"
        )
    return name


_CHANGED = "the input changed while its job ran, so the vectors do not belong to its texts; run the command again"


class _Ticket:
    """A file next to the output that names the job that computes it, for the next run of the same command."""

    def __init__(self, options: EmbedOptions) -> None:
        self._path = options.output.with_name(options.output.name + ".job")
        status = options.source.stat() if options.source.exists() else None
        identity = repr((options, status and (status.st_size, status.st_mtime_ns)))
        self._identity = hashlib.sha256(identity.encode()).hexdigest()

    def find_job(self, client: Client) -> tuple[RemoteJob, str] | None:
        """The job of an earlier run of this command on the same input, with the digest of its texts.

        None if there is none, or if it did not complete.
        """
        try:
            ticket = json.loads(self._path.read_text())
            job = client.job(ticket["job"]) if ticket["identity"] == self._identity else None
            digest = str(ticket["digest"])
        except (OSError, ValueError, KeyError, TypeError, NotFoundError):  # none, damaged, or its job is deleted
            return None
        if job is None or (job.status.ended and job.status is not JobStatus.COMPLETED):
            return None
        return job, digest

    def write(self, job_id: str, digest: str) -> None:
        """Name the job that computes the output."""
        self._path.write_text(json.dumps({"identity": self._identity, "job": job_id, "digest": digest}))

    def delete(self) -> None:
        """Delete the file, because the job has ended."""
        self._path.unlink(missing_ok=True)


class _TextsDigest:
    """SHA-256 over texts in order. The input is read twice and must be the same both times."""

    def __init__(self) -> None:
        self._sha = hashlib.sha256()

    def add(self, text: str) -> str:
        """Add a text, and return it."""
        data = text.encode()
        self._sha.update(len(data).to_bytes(8, "little") + data)
        return text

    def hex(self) -> str:
        """The digest of the texts so far."""
        return self._sha.hexdigest()


def _submit(client: Client, settings: Settings, options: EmbedOptions) -> tuple[RemoteJob, str]:
    digest = _TextsDigest()
    with progress_line("sending texts") as line:
        texts = (digest.add(item.text) for item in read_source(settings, options) if item.text is not None)
        job = client.submit(
            texts,
            model=options.model,
            device=options.device,
            prompt_name=options.prompt_name,
            input_type=None if options.prompt_name else options.input_type,
            truncate=options.truncate,
            on_sent=lambda count: line.show(Counts(computed=count), total=None),
        )
    return job, digest.hex()


def _wait(client: Client, job: RemoteJob) -> RemoteJob:
    with progress_line(f"{job.model} on {job.device}", total=job.total) as line:
        line.waits_for("no text is done yet: the model may be loading")

        def show(job: RemoteJob) -> None:
            if job.done:
                line.show(job.counts, total=job.total, in_hand=job.in_hand)

        return client.wait(job.id, on_progress=show)


def _remote_blocks(
    parts: Iterator[bytes], items: Iterator[Item], columns: ResultColumns, *, digest: str
) -> Iterator[EmbeddedBlock]:
    """Join the server's rows with their inputs; inputs without a text were not sent and have no row there.

    Args:
        parts: the results as an Arrow stream.
        items: the input, read again.
        columns: those that the model fills.
        digest: of the texts that were sent.

    Raises:
        BadInputError: the texts are not the ones that were sent; the output is not written.
    """
    read = _TextsDigest()
    for batch in read_record_batches(parts):
        block: list[Item] = []
        good: list[int] = []
        while len(good) < batch.num_rows and (item := next(items, None)):
            if item.text is not None:
                read.add(item.text)
                good.append(len(block))
            block.append(item)
        if len(good) < batch.num_rows:
            raise BadInputError(_CHANGED)
        yield _joined(block, good, batch, columns)
    rest = list(items)
    if any(item.text is not None for item in rest) or read.hex() != digest:
        raise BadInputError(_CHANGED)
    if rest:
        yield EmbeddedBlock(spread(rest, [], empty_rows(0, columns.dim), {}, []), [], ReadCounts())


def _joined(block: list[Item], good: list[int], batch: Any, columns: ResultColumns) -> EmbeddedBlock:
    messages = batch.column("error").to_pylist()
    errors = {good[i]: message for i, message in enumerate(messages) if message is not None}
    outcomes = [Outcome(value) for value in batch.column("outcome").to_pylist()]
    truncated = batch.column("truncated").to_pylist()
    return EmbeddedBlock(spread(block, good, columns.rows(batch), errors, truncated), outcomes, ReadCounts())
