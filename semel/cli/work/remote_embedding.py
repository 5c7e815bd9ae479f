"""`semel embed --url`: through a server, as a job that the same command takes up again."""

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import numpy as np

from semel.cli.work.embedding import EmbedOptions, Summary, _Done, _items, _spread, _write
from semel.cli.work.outputs import read_record_batches
from semel.cli.work.progress import progress_line
from semel.client import Client, RemoteJob
from semel.errors import BadInputError, NotFoundError, SemelError
from semel.rows import Item
from semel.settings import Settings
from semel.values.job import Counts, JobStatus
from semel.values.text import Outcome


def embed_remote(settings: Settings, wanted: EmbedOptions) -> Summary:
    """Embed through the server at `settings.url`; a job that was left behind by Ctrl-C is taken up again."""
    with Client(settings.url) as client:
        ticket = _Ticket(wanted)
        recalled = ticket.recall(client)
        job, digest = recalled or _submit(client, settings, wanted)
        ticket.keep(job.id, digest)
        try:
            job = _wait(client, job)
        except KeyboardInterrupt:
            raise BadInputError(
                f"stopped waiting; job {job.id} goes on. The same command fetches its results, "
                f"'semel jobs cancel {job.id}' ends it"
            ) from None
        ticket.forget()
        if job.status is not JobStatus.COMPLETED:
            raise SemelError(f"job {job.id} ended as {job.status}: {job.error.message if job.error else 'no reason'}")
        with client.results_stream(job.id, fmt="arrow") as parts:
            blocks = _remote_blocks(parts, _items(settings, wanted), dim=job.dimensions, digest=digest)
            return _write(wanted, blocks, dim=job.dimensions, label="fetching vectors")


_CHANGED = "the input changed while its job ran, so the vectors are not those of its texts; run the command again"


class _Ticket:
    """A note beside the output: which job computes it, for the next run of the same command."""

    def __init__(self, wanted: EmbedOptions) -> None:
        self._path = wanted.output.with_name(wanted.output.name + ".job")
        status = wanted.source.stat() if wanted.source.exists() else None
        identity = repr((wanted, status and (status.st_size, status.st_mtime_ns)))
        self._identity = hashlib.sha256(identity.encode()).hexdigest()

    def recall(self, client: Client) -> tuple[RemoteJob, str] | None:
        """The job of an earlier run on the same input, unless it failed."""
        try:
            noted = json.loads(self._path.read_text())
            job = client.job(noted["job"]) if noted["identity"] == self._identity else None
            digest = str(noted["digest"])
        except (OSError, ValueError, KeyError, NotFoundError):
            return None
        if job is None or (job.status.ended and job.status is not JobStatus.COMPLETED):
            return None
        return job, digest

    def keep(self, job_id: str, digest: str) -> None:
        self._path.write_text(json.dumps({"identity": self._identity, "job": job_id, "digest": digest}))

    def forget(self) -> None:
        self._path.unlink(missing_ok=True)


class _TextsDigest:
    """SHA-256 over texts in order: the input is read twice, and must be the same both times."""

    def __init__(self) -> None:
        self._sha = hashlib.sha256()

    def add(self, text: str) -> str:
        data = text.encode()
        self._sha.update(len(data).to_bytes(8, "little") + data)
        return text

    def hex(self) -> str:
        return self._sha.hexdigest()


def _submit(client: Client, settings: Settings, wanted: EmbedOptions) -> tuple[RemoteJob, str]:
    digest = _TextsDigest()
    with progress_line("sending texts") as line:
        texts = (digest.add(item.text) for item in _items(settings, wanted) if item.text is not None)
        job = client.submit(
            texts,
            model=wanted.model,
            device=wanted.device,
            prompt_name=wanted.prompt_name,
            truncate=wanted.truncate,
            on_sent=lambda count: line.show(Counts(computed=count), total=None),
        )
    return job, digest.hex()


def _wait(client: Client, job: RemoteJob) -> RemoteJob:
    with progress_line(f"{job.model} on {job.device}", total=job.total) as line:
        return client.wait(job.id, on_progress=lambda job: line.show(job.counts, total=job.total))


def _remote_blocks(parts: Iterator[bytes], items: Iterator[Item], *, dim: int, digest: str) -> Iterator[_Done]:
    """Join the server's rows with the inputs they belong to; inputs without text have no row there.

    Raises:
        BadInputError: the texts are not those that were sent; the output is not written.
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
        yield _joined(block, good, batch, dim)
    rest = list(items)
    if any(item.text is not None for item in rest) or read.hex() != digest:
        raise BadInputError(_CHANGED)
    if rest:
        yield _Done(_spread(rest, [], np.empty((0, dim), np.float32), {}, []), [])


def _joined(block: list[Item], good: list[int], batch: Any, dim: int) -> _Done:
    column = batch.column("embedding")
    vectors = column.values.to_numpy(zero_copy_only=False)[column.offset * dim :][: len(column) * dim]
    messages = batch.column("error").to_pylist()
    errors = {good[i]: message for i, message in enumerate(messages) if message is not None}
    outcomes = [Outcome(value) for value in batch.column("outcome").to_pylist()]
    truncated = batch.column("truncated").to_pylist()
    return _Done(_spread(block, good, vectors.reshape(-1, dim), errors, truncated), outcomes)
