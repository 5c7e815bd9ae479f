"""What a client asks of the server about jobs; see `semel.client.calls`."""

import io
import json
import time
from collections.abc import AsyncIterable, Callable, Iterable, Mapping
from typing import Any, Unpack

import numpy as np

from semel.client.records import Estimate, RemoteJob, estimate_of, job_of
from semel.client.steps import Call, Pause, Request
from semel.client.texts import rows_of
from semel.client.upload import NDJSON, as_lines, as_lines_async, ignore
from semel.errors import ConflictError, TimedOutError, UnavailableError
from semel.values.job import JobOptions
from semel.values.result_columns import ResultColumns
from semel.values.vectors import AnyVectors


def submit(
    texts: Any,
    *,
    idempotency_key: str | None = None,
    on_sent: Callable[[int], None] = ignore,
    **options: Unpack[JobOptions],
) -> Call[RemoteJob]:
    """Submit texts as a job. They are sent as a stream, so memory use stays flat for any iterable.

    Args:
        texts: an iterable of texts, or of rows: `{"text": …}`, for a cross-encoder `{"query": …, "document": …}`; a
            single text; or a table (pandas, polars, pyarrow, DuckDB). The `id` and every other field of a row are
            returned with its result.
        idempotency_key: sending the same texts again with the same key within a day returns the same job.
        on_sent: called from time to time with the number of texts sent so far.
        options: see `semel.values.job.JobOptions`.

    Raises:
        BadInputError: the server refuses an option or a row; the message names it and the reason.
        OverloadedError: too much work waits; nothing was accepted.
    """
    headers = NDJSON if idempotency_key is None else {**NDJSON, "idempotency-key": idempotency_key}
    item = yield _upload("/v1/jobs", texts, on_sent, options, headers)
    return job_of(item)


def estimate(texts: Any, **options: Unpack[JobOptions]) -> Call[Estimate]:
    """What a job with these texts and options would do; nothing is stored or computed. As of `submit`.

    Raises:
        BadInputError: the server refuses an option or a row; the message names it and the reason.
    """
    item = yield _upload("/v1/jobs/estimate", texts, ignore, options, NDJSON)
    return estimate_of(item)


def _upload(
    path: str, texts: Any, on_sent: Callable[[int], None], options: JobOptions, headers: Mapping[str, str]
) -> Request:
    params: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    params["metadata"] = json.dumps(options.get("metadata") or {})
    text_field = options.get("text_field") or "text"
    content: Iterable[bytes] | AsyncIterable[bytes]
    if isinstance(texts, AsyncIterable):  # for AsyncClient
        content = as_lines_async(texts, on_sent, text_field)
    else:
        content = as_lines(rows_of(texts, text_field), on_sent, text_field)
    return Request("POST", path, {"params": params, "content": content, "headers": headers}, repeatable=False)


def job(job: str | RemoteJob) -> Call[RemoteJob]:
    """The current state of a job, by its id or an earlier state. Raises NotFoundError."""
    item = yield Request("GET", f"/v1/jobs/{id_of(job)}")
    return job_of(item)


def jobs(
    *, limit: int = 20, after: str | RemoteJob | None = None, status: str | None = None, model: str | None = None
) -> Call[list[RemoteJob]]:
    """One page of the jobs, the newest first.

    Args:
        limit: the size of the page.
        after: the last job of the previous page, or its id.
        status: only jobs in this state.
        model: only jobs of this model.

    Raises:
        BadInputError: the server refuses an argument; the message names it.
    """
    filters = {"limit": limit, "after": None if after is None else id_of(after), "status": status, "model": model}
    params = {name: value for name, value in filters.items() if value is not None}
    answer = yield Request("GET", "/v1/jobs", {"params": params})
    return [job_of(item) for item in answer["data"]]


def cancel(job: str | RemoteJob) -> Call[RemoteJob]:
    """Stop a job. Raises NotFoundError, and ConflictError if it has already ended."""
    item = yield Request("POST", f"/v1/jobs/{id_of(job)}/cancel")
    return job_of(item)


def retry(job: str | RemoteJob) -> Call[RemoteJob]:
    """Compute the failed texts of an ended job again. Raises NotFoundError, and ConflictError if it runs."""
    item = yield Request("POST", f"/v1/jobs/{id_of(job)}/retry")
    return job_of(item)


def delete(job: str | RemoteJob) -> Call[None]:
    """Delete an ended job; its vectors stay in the cache. Raises NotFoundError, and ConflictError if it runs."""
    yield Request("DELETE", f"/v1/jobs/{id_of(job)}", repeatable=False)


def wait(
    job: str | RemoteJob, *, timeout_s: float | None = None, on_progress: Callable[[RemoteJob], None] = ignore
) -> Call[RemoteJob]:
    """Poll until the job ends, and return it whatever its `status`.

    Args:
        timeout_s: how long to wait; None for ever.
        on_progress: called with the job after each poll.

    Raises:
        NotFoundError: there is no such job.
        TimedOutError: the job is still running after `timeout_s`.
    """
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    pause_s = 0.02
    while True:
        now = job_of((yield Request("GET", f"/v1/jobs/{id_of(job)}")))
        on_progress(now)
        if now.status.ended:
            return now
        if deadline is not None and time.monotonic() > deadline:
            raise TimedOutError(f"job {now.id} is still {now.status} after {timeout_s:g} s and continues")
        yield Pause(pause_s)
        pause_s = min(pause_s * 1.5, 0.5)


def results(job: str | RemoteJob) -> Call[AnyVectors]:
    """All rows of a completed job, in the order of its texts.

    They are vectors or scores, float32 (total, dim); or `SparseVector`s in an object array (total,).

    Raises:
        NotFoundError: there is no such job.
        ConflictError: the job is not completed, or some texts failed (`results_stream` shows which).
        UnavailableError: the answer was cut off.
    """
    path = f"/v1/jobs/{id_of(job)}"
    now = job_of((yield Request("GET", path)))
    if now.kind == "sparse":
        return _sparse_rows(now, (yield _download(path, "arrow")))
    data: bytes = yield _download(path, "npy")
    file = io.BytesIO(data)
    np.lib.format.read_magic(file)
    np.lib.format.read_array_header_1_0(file)
    header_bytes = file.tell()
    expected = header_bytes + now.total * now.dimensions * 4
    if len(data) != expected:
        raise UnavailableError(f"the results of {now.id} ended after {len(data)} of {expected} bytes; try again")
    return np.frombuffer(data, "<f4", offset=header_bytes).reshape(now.total, now.dimensions)


def _download(path: str, fmt: str) -> Request:
    return Request("GET", f"{path}/results", {"params": {"format": fmt}}, repeatable=False, raw=True)


def _sparse_rows(job: RemoteJob, data: bytes) -> AnyVectors:
    """Rows from an Arrow stream. Raises ConflictError if a text failed, and UnavailableError if rows are missing."""
    import pyarrow as pa

    try:
        with pa.ipc.open_stream(data) as reader:
            table = reader.read_all()
    except pa.ArrowInvalid as error:
        raise UnavailableError(f"the results of {job.id} ended early ({error}); try again") from error
    if table.num_rows != job.total:
        raise UnavailableError(f"the results of {job.id} ended after {table.num_rows} of {job.total} rows; try again")
    if job.counts.failed:
        raise ConflictError(f"{job.counts.failed} of {job.total} texts failed; use results_stream, or to_arrow")
    return ResultColumns(job.kind, job.dimensions).rows(table.combine_chunks())


def id_of(job: str | RemoteJob) -> str:
    """The id of a job, from the job or its id."""
    return job if isinstance(job, str) else job.id
