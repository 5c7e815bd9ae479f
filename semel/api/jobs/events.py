"""A job's progress as server-sent events (the HTML standard's `text/event-stream`)."""

import time
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable

from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse

from semel.api.edge.as_json import as_json
from semel.api.jobs.wire import job_object
from semel.api.watch.running_texts import RunningTexts
from semel.errors import NotFoundError
from semel.tasks.jobs.store import JobStore
from semel.values.job import Job

_POLL_S = 0.5
KEEP_ALIVE = b": still here\n\n"
"""An SSE comment, which clients ignore."""

_KEEP_ALIVE_S = 15.0
"""A comment at this interval keeps proxies from closing a quiet connection."""


async def job_events(
    jobs: JobStore, running: RunningTexts, job: Job, pause: Callable[[float], Awaitable[bool]]
) -> AsyncIterator[bytes]:
    """Yield a `progress` event whenever the job changed, and an `end` event when it has ended.

    Each event carries the job, its rate in texts/s since the events began, and the seconds left.

    Args:
        running: counts the texts in chunks that are still running.
        pause: waits for a number of seconds; returns False when the server is shutting down.
    """
    started, last_sent = time.monotonic(), 0.0
    in_hand = await run_in_threadpool(_in_hand, running, job)
    at_start, last = job.counts.done + in_hand, None
    while True:
        elapsed, done = time.monotonic() - started, job.counts.done + in_hand
        rate = (done - at_start) / elapsed if elapsed > 0 else 0.0
        if job.status.ended:
            yield event("end", _payload(job, 0, rate, 0.0))
            return
        if (job, in_hand) != last:
            eta_s = (job.total - done) / rate if rate > 0 else None
            yield event("progress", _payload(job, in_hand, rate, eta_s))
            last, last_sent = (job, in_hand), time.monotonic()
        elif time.monotonic() - last_sent > _KEEP_ALIVE_S:
            yield KEEP_ALIVE
            last_sent = time.monotonic()
        if not await pause(_POLL_S):
            return
        try:
            job = await run_in_threadpool(jobs.get, job.id)
            in_hand = await run_in_threadpool(_in_hand, running, job)
        except NotFoundError:  # deleted meanwhile: there is nothing left to report
            return


def _in_hand(running: RunningTexts, job: Job) -> int:
    return 0 if job.status.ended else running.by_job({job.id})[job.id]


def event(name: str, data: object) -> bytes:
    """Encode one server-sent event, its data as JSON."""
    return b"event: " + name.encode() + b"\ndata: " + as_json(data) + b"\n\n"


def event_stream(events: AsyncIterable[bytes] | Iterable[bytes]) -> StreamingResponse:
    """A streaming response of server-sent events, with headers that stop proxies from buffering or caching it."""
    headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
    return StreamingResponse(events, media_type="text/event-stream", headers=headers)


def _payload(job: Job, in_hand: int, texts_per_s: float, eta_s: float | None) -> dict[str, object]:
    rounded = None if eta_s is None else round(eta_s, 1)
    return {
        "job": job_object(job, in_hand=in_hand).model_dump(mode="json"),
        "texts_per_s": round(texts_per_s, 1),
        "eta_s": rounded,
    }
