"""Streams the results of a job, chunk by chunk, in four formats. Memory holds one chunk."""

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from typing_extensions import override

from semel.api.edge.as_json import as_json
from semel.cache.catalog import Catalog
from semel.cache.store import VectorStore
from semel.errors import ConflictError, ForbiddenError
from semel.pipeline import Pipeline
from semel.tasks.jobs.rows import NO_KEY, ChunkResult
from semel.tasks.jobs.store import JobStore
from semel.values.job import Job, JobStatus
from semel.values.text import Extra, ItemError, Lane, Outcome
from semel.values.vectors import Found, Vectors


@dataclass(frozen=True)
class Rows:
    """The rows of one chunk, or of a slice of it.

    Attributes:
        first_index: position of the first row in the job.
        vectors: float32 (n, dim); the row of a failed text is meaningless.
        errors: position in this part → why that text failed.
        extras: the id and the other fields of each row, or None.
    """

    first_index: int
    vectors: Vectors
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
        """Yield every finished chunk of a job with its rows, in order."""
        for chunk in self._jobs.results(job.id):
            yield chunk, self.rows(job, chunk, may_submit=True)

    def rows(self, job: Job, chunk: ChunkResult, found: Found | None = None, *, may_submit: bool) -> Rows:
        """The rows of a chunk, read from the cache; lost vectors are recomputed where the texts were kept.

        Args:
            found: the rows of the cache, if they were read already.
            may_submit: False for a reader whose key only reads: the other fields of the rows, which may be texts, are
                left out, and nothing is computed.

        Raises:
            ForbiddenError: vectors are lost, and the reader may only read.
            ConflictError: vectors are lost, and the texts too, or the model's weights have changed.
        """
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


def check_ready(job: Job, fmt: str) -> None:
    """Raises ConflictError unless the job has completed and this format can represent its results."""
    if job.status is not JobStatus.COMPLETED:
        reason = f": {job.error.message}" if job.error else ""
        raise ConflictError(f"job {job.id} is {job.status}{reason}; results are available once it is completed")
    if fmt == "npy" and job.counts.failed:
        raise ConflictError(
            f"{job.counts.failed} of {job.total} texts failed, and npy cannot mark their rows; "
            "use format=ndjson, arrow or parquet"
        )


def ndjson(job: Job, _span: range, rows: Iterator[Rows]) -> Iterator[bytes]:
    """One JSON object per line: index, the row's id and metadata, outcome, and embedding, score or error."""
    for part in rows:
        lines = []
        for i, outcome in enumerate(part.outcomes):
            extra = part.extras[i]
            item: dict[str, Any] = {"index": part.first_index + i, **(extra._asdict() if extra else {})}
            item["outcome"] = outcome.value
            if i in part.errors:
                item["error"] = {"code": part.errors[i].code, "message": part.errors[i].message}
            else:
                made = {"score": part.vectors[i, 0]} if job.scores else {"embedding": part.vectors[i]}
                item |= {"truncated": part.truncated[i], **made}
            lines.append(as_json(item))
        yield b"\n".join(lines) + b"\n"


def npy(job: Job, span: range, rows: Iterator[Rows]) -> Iterator[bytes]:
    """NumPy's .npy format: float32 (len(span), dim).

    Raises:
        ConflictError: a text has no vector any more; the stream is then shorter than its header promises.
    """
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f4", "fortran_order": False, "shape": (len(span), job.dim)}
    )
    yield header.getvalue()
    for part in rows:
        if part.errors:
            raise ConflictError(f"a text of job {job.id} no longer has a vector; use format=ndjson, arrow or parquet")
        yield part.vectors.astype("<f4", copy=False).tobytes()


def _schema(dim: int) -> pa.Schema:
    return pa.schema(
        [
            ("index", pa.int64()),
            ("id", pa.string()),
            ("metadata", pa.string()),
            ("embedding", pa.list_(pa.float32(), dim)),
            ("outcome", pa.string()),
            ("truncated", pa.bool_()),
            ("error", pa.string()),
        ]
    )


def _batch(job: Job, part: Rows) -> pa.RecordBatch:
    n = len(part.outcomes)
    failed = np.zeros(n, np.bool_)
    failed[list(part.errors)] = True
    flat = pa.array(part.vectors.reshape(-1))
    embedding = pa.FixedSizeListArray.from_arrays(flat, job.dim, mask=pa.array(failed))
    errors = [part.errors[i].message if i in part.errors else None for i in range(n)]
    return pa.record_batch(
        [
            pa.array(np.arange(part.first_index, part.first_index + n)),
            pa.array([_id_text(e) for e in part.extras], pa.string()),
            pa.array([as_json(e.metadata) if e else None for e in part.extras], pa.string()),
            embedding,
            pa.array([o.value for o in part.outcomes]),
            pa.array(part.truncated),
            pa.array(errors, pa.string()),
        ],
        schema=_schema(job.dim),
    )


def _id_text(extra: Extra | None) -> str | None:
    """The row's id as text; a lone surrogate, which Arrow cannot hold, becomes a question mark."""
    return None if extra is None or extra.id is None else str(extra.id).encode("utf-8", "replace").decode()


class _Pipe(io.RawIOBase):
    """A write-only file that Arrow writes into and a generator drains with `take`."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._at = 0

    @override
    def writable(self) -> bool:
        return True

    @override
    def write(self, data: Any) -> int:
        part = bytes(data)
        self._parts.append(part)
        self._at += len(part)
        return len(part)

    @override
    def tell(self) -> int:
        return self._at

    def take(self) -> bytes:
        """The bytes written since the last call."""
        parts, self._parts = self._parts, []
        return b"".join(parts)


def arrow(job: Job, _span: range, rows: Iterator[Rows]) -> Iterator[bytes]:
    """An Arrow IPC stream; a failed text has a null embedding and its error, and `metadata` is JSON."""
    pipe = _Pipe()
    with pa.ipc.new_stream(pipe, _schema(job.dim)) as writer:
        for part in rows:
            writer.write_batch(_batch(job, part))
            yield pipe.take()
    yield pipe.take()


def parquet(job: Job, _span: range, rows: Iterator[Rows]) -> Iterator[bytes]:
    """A Parquet file with one row group per chunk; columns as in `arrow`."""
    pipe = _Pipe()
    with pq.ParquetWriter(pipe, _schema(job.dim)) as writer:
        for part in rows:
            writer.write_batch(_batch(job, part))
            yield pipe.take()
    yield pipe.take()


FORMATS: dict[str, tuple[str, Callable[[Job, range, Iterator[Rows]], Iterator[bytes]]]] = {
    "ndjson": ("application/x-ndjson", ndjson),
    "npy": ("application/octet-stream", npy),
    "arrow": ("application/vnd.apache.arrow.stream", arrow),
    "parquet": ("application/vnd.apache.parquet", parquet),
}
"""Format name → media type and writer; a writer takes the job, the range of texts and their rows."""
