"""Writes the results of a job, chunk by chunk, in four formats. Memory holds one chunk."""

import io
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from typing_extensions import override

from semel.api.edge.as_json import as_json
from semel.api.jobs.results import Rows
from semel.errors import ConflictError
from semel.values.job import Job, JobStatus
from semel.values.result_columns import ResultColumns
from semel.values.text import Extra


def columns_of(job: Job) -> ResultColumns:
    """The columns that a job's model fills."""
    return ResultColumns(job.kind, job.dim, job.head.labels)


def check_ready(job: Job, fmt: str) -> None:
    """Check that a job has completed, and that a format can represent its results.

    Raises ConflictError or BadInputError.
    """
    if job.status is not JobStatus.COMPLETED:
        reason = f": {job.error.message}" if job.error else ""
        raise ConflictError(f"job {job.id} is {job.status}{reason}; results are available once it is completed")
    if fmt == "npy":
        columns_of(job).check_matrix()
    if fmt == "npy" and job.counts.failed:
        raise ConflictError(
            f"{job.counts.failed} of {job.total} texts failed, and npy cannot mark their rows; "
            "use format=ndjson, arrow or parquet"
        )


def ndjson(job: Job, _span: range, rows: Iterator[Rows]) -> Iterator[bytes]:
    """One JSON object per line: index, the row's id and metadata, outcome, and the model's fields or an error."""
    columns = columns_of(job)
    for part in rows:
        lines = []
        for i, outcome in enumerate(part.outcomes):
            extra = part.extras[i]
            item: dict[str, Any] = {"index": part.first_index + i, **(extra._asdict() if extra else {})}
            item["outcome"] = outcome.value
            if i in part.errors:
                item["error"] = {"code": part.errors[i].code, "message": part.errors[i].message}
            else:
                item |= {"truncated": part.truncated[i], **columns.as_json(part.vectors[i])}
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


def _schema(columns: ResultColumns) -> pa.Schema:
    return pa.schema(
        [
            ("index", pa.int64()),
            ("id", pa.string()),
            ("metadata", pa.string()),
            *columns.fields(),
            ("outcome", pa.string()),
            ("truncated", pa.bool_()),
            ("error", pa.string()),
        ]
    )


def _batch(columns: ResultColumns, part: Rows) -> pa.RecordBatch:
    n = len(part.outcomes)
    errors = [part.errors[i].message if i in part.errors else None for i in range(n)]
    return pa.record_batch(
        [
            pa.array(np.arange(part.first_index, part.first_index + n)),
            pa.array([_id_text(e) for e in part.extras], pa.string()),
            pa.array([as_json(e.metadata) if e else None for e in part.extras], pa.string()),
            *columns.arrays(part.vectors, list(part.errors)),
            pa.array([o.value for o in part.outcomes]),
            pa.array(part.truncated),
            pa.array(errors, pa.string()),
        ],
        schema=_schema(columns),
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
    pipe, columns = _Pipe(), columns_of(job)
    with pa.ipc.new_stream(pipe, _schema(columns)) as writer:
        for part in rows:
            writer.write_batch(_batch(columns, part))
            yield pipe.take()
    yield pipe.take()


def parquet(job: Job, _span: range, rows: Iterator[Rows]) -> Iterator[bytes]:
    """A Parquet file with one row group per chunk; columns as in `arrow`."""
    pipe, columns = _Pipe(), columns_of(job)
    with pq.ParquetWriter(pipe, _schema(columns)) as writer:
        for part in rows:
            writer.write_batch(_batch(columns, part))
            yield pipe.take()
    yield pipe.take()


FORMATS: dict[str, tuple[str, Callable[[Job, range, Iterator[Rows]], Iterator[bytes]]]] = {
    "ndjson": ("application/x-ndjson", ndjson),
    "npy": ("application/octet-stream", npy),
    "arrow": ("application/vnd.apache.arrow.stream", arrow),
    "parquet": ("application/vnd.apache.parquet", parquet),
}
"""Format name → media type and writer; a writer takes the job, the range of texts and their rows."""
