"""Reads the results of a job, chunk by chunk. Memory holds one chunk."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from semel.cache.catalog import Catalog
from semel.cache.store import VectorStore
from semel.errors import ConflictError, ForbiddenError
from semel.pipeline import Pipeline
from semel.tasks.jobs.rows import NO_KEY, ChunkResult
from semel.tasks.jobs.store import JobStore
from semel.values.activation import activated
from semel.values.job import Job
from semel.values.text import Extra, ItemError, Lane, Outcome
from semel.values.vectors import AnyVectors, Found


@dataclass(frozen=True)
class Rows:
    """The rows of one chunk, or of a slice of it.

    Attributes:
        first_index: position of the first row in the job.
        vectors: a row for each text; that of a failed one is meaningless.
        errors: position in this part → why that text failed.
        extras: the id and the other fields of each row, or None.
    """

    first_index: int
    vectors: AnyVectors
    outcomes: list[Outcome]
    errors: dict[int, ItemError]
    truncated: list[bool]
    tokens: list[int]
    extras: Sequence[Extra | None]


class ResultReader:
    """Reads the results of jobs: chunks from the job store, vectors from the cache.

    Args:
        pipeline: recomputes vectors that the cache has lost since the job ran.
    """

    def __init__(self, jobs: JobStore, vectors: VectorStore, catalog: Catalog, pipeline: Pipeline) -> None:
        self._jobs = jobs
        self._vectors = vectors
        self._catalog = catalog
        self._pipeline = pipeline

    def read(self, job: Job, span: range, *, may_submit: bool) -> Iterator[Rows]:
        """Yield the rows of the texts in `span`, in order.

        Args:
            may_submit: as for `rows`.

        Raises:
            ConflictError: at the end, when rows are missing because the job was deleted meanwhile; or see `rows`.
        """
        read = 0
        for chunk in self._jobs.results(job.id, first=span.start, stop=span.stop):
            part = _cut(chunk, span)
            read += len(part.keys)
            yield self.rows(job, part, may_submit=may_submit)
        if read != len(span):
            raise ConflictError(
                f"job {job.id} has {read} of {len(span)} rows; it was deleted while its results were read"
            )

    def chunks(self, job: Job) -> Iterator[tuple[ChunkResult, Rows]]:
        """Yield every finished chunk of a job with its rows, in order; those of scores hold logits."""
        for chunk in self._jobs.results(job.id):
            yield chunk, self._stored(job, chunk, None, may_submit=True)

    def rows(self, job: Job, chunk: ChunkResult, found: Found | None = None, *, may_submit: bool) -> Rows:
        """The rows of a chunk, read from the cache; lost vectors are recomputed where the texts were kept.

        Those of a cross-encoder or a classifier hold scores.

        Args:
            found: the rows of the cache, if they were read already.
            may_submit: False for a reader whose key only reads: the other fields of the rows, which may be texts, are
                left out, and nothing is computed.

        Raises:
            ForbiddenError: vectors are lost, and the reader may only read.
            ConflictError: vectors are lost, and the texts too, or the model's weights have changed.
        """
        rows = self._stored(job, chunk, found, may_submit=may_submit)
        if job.kind not in ("cross-encoder", "classifier"):
            return rows
        return replace(rows, vectors=activated(job.head.activation, rows.vectors))

    def _stored(self, job: Job, chunk: ChunkResult, found: Found | None, *, may_submit: bool) -> Rows:
        """As `rows`, with what the cache holds."""
        found = found or self._vectors.get_many(chunk.keys, dim=job.dim)
        lost = lost_vectors(chunk, found)
        vectors, truncated, errors = found.vectors, found.truncated, dict(chunk.errors)
        assert vectors is not None  # get_many returns vectors by default
        if lost and not may_submit:
            raise ForbiddenError(
                f"the cache has lost {len(lost)} vectors of job {job.id}; to compute them again, the API key needs the "
                "scope 'submit'"
            )
        if lost:  # damaged rows, or a space that was dropped
            texts = chunk.texts()
            if texts is None:
                raise ConflictError(
                    f"the cache has lost {len(lost)} vectors of job {job.id} (damaged rows, or a dropped space), "
                    "and texts are kept only until they have a vector; submit the job again"
                )
            space = self._catalog.space(job.model, job.prompt_name).within(job.cache_namespace)
            if space.fingerprint != job.fingerprint:
                raise ConflictError(
                    f"the cache has lost vectors of job {job.id}, and model {job.model!r} has different weights now; "
                    "submit the job again"
                )
            space = space.with_variant(job.variant)
            again = self._pipeline.embed(space, [texts[i] for i in lost], lane=Lane.INTERACTIVE)
            vectors[lost], truncated[lost], found.tokens[lost] = again.vectors, again.truncated, again.tokens
            errors |= {lost[i]: error for i, error in again.errors.items()}
        tokens: list[int] = found.tokens.tolist()
        extras = chunk.extras if may_submit else [extra and Extra(extra.id, {}) for extra in chunk.extras]
        return Rows(chunk.first_index, vectors, chunk.outcomes, errors, truncated.tolist(), tokens, extras)


def lost_vectors(chunk: ChunkResult, found: Found) -> list[int]:
    """Positions of texts in a finished chunk whose vectors the cache has lost: damaged rows, or a dropped space.

    Args:
        found: the rows of the cache for the keys of the chunk.
    """
    return [i for i, key in enumerate(chunk.keys) if not found.present[i] and key != NO_KEY and i not in chunk.errors]


def _cut(chunk: ChunkResult, span: range) -> ChunkResult:
    """The part of a chunk that lies in `span`."""
    start = max(0, span.start - chunk.first_index)
    stop = min(len(chunk.keys), span.stop - chunk.first_index)
    if (start, stop) == (0, len(chunk.keys)):
        return chunk
    errors = {i - start: error for i, error in chunk.errors.items() if start <= i < stop}
    return replace(
        chunk,
        first_index=chunk.first_index + start,
        keys=chunk.keys[start:stop],
        outcomes=chunk.outcomes[start:stop],
        errors=errors,
        extras=chunk.extras[start:stop],
        skipped=start,
    )
