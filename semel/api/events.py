"""A job's progress as server-sent events (the HTML standard's `text/event-stream`)."""

import asyncio
import json
import time
from collections.abc import AsyncIterator

from fastapi.concurrency import run_in_threadpool

from semel.api.schemas import job_object
from semel.api.services import Services
from semel.errors import NotFoundError
from semel.values import Job

_LOOK_S = 0.5
_SIGN_OF_LIFE_S = 15.0
"""A comment this often keeps proxies from closing a quiet connection."""


async def job_events(services: Services, job: Job) -> AsyncIterator[str]:
    """`progress` whenever something changed, with the job, its rate in texts/s and the seconds left; at last `end`."""
    started, at_start, told, last_sent = time.monotonic(), job.counts.done, "", 0.0
    while True:
        elapsed = time.monotonic() - started
        rate = (job.counts.done - at_start) / elapsed if elapsed > 0 else 0.0
        state = job_object(job).model_dump_json()
        if job.status.ended:
            yield _event("end", state, rate, 0.0)
            return
        if state != told:
            eta_s = (job.total - job.counts.done) / rate if rate else None
            yield _event("progress", state, rate, eta_s)
            told, last_sent = state, time.monotonic()
        elif time.monotonic() - last_sent > _SIGN_OF_LIFE_S:
            yield ": still here\n\n"
            last_sent = time.monotonic()
        await asyncio.sleep(_LOOK_S)
        try:
            job = await run_in_threadpool(services.jobs.get, job.id)
        except NotFoundError:  # deleted meanwhile: nothing is left to tell
            return


def _event(name: str, job_json: str, rate: float, eta_s: float | None) -> str:
    rounded = None if eta_s is None else round(eta_s, 1)
    data = {"job": json.loads(job_json), "texts_per_s": round(rate, 1), "eta_s": rounded}
    return f"event: {name}\ndata: {json.dumps(data)}\n\n"
