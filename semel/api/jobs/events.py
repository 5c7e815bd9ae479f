"""A job's progress as server-sent events (the HTML standard's `text/event-stream`)."""

import time
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable

from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse

from semel.api.edge.as_json import as_json
from semel.api.jobs.wire import job_object
from semel.errors import NotFoundError
from semel.tasks.jobs.store import JobStore
from semel.values.job import Job

_LOOK_S = 0.5
SIGN_OF_LIFE = b": still here\n\n"
_SIGN_OF_LIFE_S = 15.0
"""A comment this often keeps proxies from closing a quiet connection."""


async def job_events(jobs: JobStore, job: Job, pause: Callable[[float], Awaitable[bool]]) -> AsyncIterator[bytes]:
    """`progress` whenever something changed, with the job, its rate in texts/s and the seconds left; at last `end`.

    Args:
        pause: waits so many seconds; False when the server ends.
    """
    started, at_start, last_sent = time.monotonic(), job.counts.done, 0.0
    told: Job | None = None
    while True:
        elapsed = time.monotonic() - started
        rate = (job.counts.done - at_start) / elapsed if elapsed > 0 else 0.0
        if job.status.ended:
            yield event("end", _told(job, rate, 0.0))
            return
        if job != told:
            eta_s = (job.total - job.counts.done) / rate if rate else None
            yield event("progress", _told(job, rate, eta_s))
            told, last_sent = job, time.monotonic()
        elif time.monotonic() - last_sent > _SIGN_OF_LIFE_S:
            yield SIGN_OF_LIFE
            last_sent = time.monotonic()
        if not await pause(_LOOK_S):
            return
        try:
            job = await run_in_threadpool(jobs.get, job.id)
        except NotFoundError:  # deleted meanwhile: nothing is left to tell
            return


def event(name: str, data: object) -> bytes:
    """One server-sent event, its data as JSON."""
    return b"event: " + name.encode() + b"\ndata: " + as_json(data) + b"\n\n"


def event_stream(events: AsyncIterable[bytes] | Iterable[bytes]) -> StreamingResponse:
    """An answer of such events that no proxy keeps back."""
    headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
    return StreamingResponse(events, media_type="text/event-stream", headers=headers)


def _told(job: Job, texts_per_s: float, eta_s: float | None) -> dict[str, object]:
    rounded = None if eta_s is None else round(eta_s, 1)
    return {"job": job_object(job).model_dump(mode="json"), "texts_per_s": round(texts_per_s, 1), "eta_s": rounded}
