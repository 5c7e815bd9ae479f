"""Reads of jobs and of their small results: those that arrive together share their statements."""

from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import Future
from typing import NamedTuple

from semel.api.jobs.result_formats import FORMATS, check_ready
from semel.api.jobs.results import lost_vectors
from semel.api.services import Services
from semel.errors import ConflictError, NotFoundError, SemelError
from semel.tasks.jobs.rows import ChunkResult, parts_of
from semel.together import Together
from semel.values.job import Job, JobStatus
from semel.values.vectors import Found

SMALL_TEXTS = 32
"""The results of a job with at most this many texts are read together with others; a larger one is streamed."""

_MOST = 64
"""Jobs in one read."""


class Wanted(NamedTuple):
    """A job to read.

    Attributes:
        format: of its results; None for the job alone.
        may_submit: whether the reader's key may submit.
        namespace: the jobs of no other one exist for the reader; None for all.
    """

    job_id: str
    format: str | None = None
    may_submit: bool = False
    namespace: str | None = None


class Read(NamedTuple):
    """A job with its texts in running chunks, and its results if they were wanted and are small."""

    job: Job
    body: bytes | None = None
    in_hand: int = 0


class SmallReads:
    """Reads jobs and small results."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._together = Together[Wanted, Read]("small reads", self._read, most=_MOST)

    def read(self, wanted: Wanted) -> "Future[Read]":
        """Read a job. The future's errors: NotFoundError, and ConflictError as of `check_ready`."""
        return self._together.submit(wanted)

    def close(self) -> None:
        """Read what is asked for, then stop."""
        self._together.close()

    def _read(self, wanted: Sequence[Wanted]) -> list[Read | Exception]:
        found = {job.id: job for job in self._services.stores.jobs.find({each.job_id for each in wanted})}
        running = self._services.watch.running.by_job({job.id for job in found.values() if not job.status.ended})
        asked = {each.job_id for each in wanted if each.format is not None}
        small = {job_id: job for job_id, job in found.items() if job_id in asked and _is_small(job)}
        chunks = self._chunks_with_vectors(small) if small else {}
        return [self._one(each, found.get(each.job_id), chunks, running[each.job_id]) for each in wanted]

    def _one(
        self, wanted: Wanted, job: Job | None, chunks: dict[str, list[tuple[ChunkResult, Found]]], in_hand: int
    ) -> Read | Exception:
        if job is None or wanted.namespace not in (None, job.namespace):
            return NotFoundError("job", wanted.job_id)
        if wanted.format is None:
            return Read(job, in_hand=in_hand)
        try:
            check_ready(job, wanted.format)
            parts = chunks.get(job.id, [])
            # A lost vector is computed again, which may take a while: not here, where others would wait for it.
            if not _is_small(job) or any(lost_vectors(chunk, found) for chunk, found in parts):
                return Read(job)
            read = self._services.results.rows
            rows = [read(job, chunk, found, may_submit=wanted.may_submit) for chunk, found in parts]
            if sum(len(part.outcomes) for part in rows) != job.total:
                return ConflictError(f"job {job.id} was deleted while its results were read")
            _, write = FORMATS[wanted.format]
            return Read(job, b"".join(write(job, range(job.total), iter(rows))))
        except SemelError as error:
            return error

    def _chunks_with_vectors(self, jobs: dict[str, Job]) -> dict[str, list[tuple[ChunkResult, Found]]]:
        """Job id → its chunks, each with the rows of the cache for its keys."""
        chunks = self._services.stores.jobs.results_of(list(jobs))
        by_dim: dict[int, list[tuple[str, ChunkResult]]] = defaultdict(list)
        for job_id, chunk in chunks:
            by_dim[jobs[job_id].dim].append((job_id, chunk))
        paired: dict[str, list[tuple[ChunkResult, Found]]] = defaultdict(list)
        for dim, group in by_dim.items():
            found = self._services.stores.vectors.get_many([key for _, chunk in group for key in chunk.keys], dim=dim)
            parts = parts_of(found, [chunk for _, chunk in group])
            for (job_id, chunk), part in zip(group, parts, strict=True):
                paired[job_id].append((chunk, part))
        return paired


def _is_small(job: Job) -> bool:
    return job.status is JobStatus.COMPLETED and job.total <= SMALL_TEXTS
