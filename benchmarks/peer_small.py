"""The service that a user writes by hand: FastAPI, Celery and Redis, without a database and without a cache.

Its choices are the fastest of those that were tried: routes that are coroutines (functions in threads were slower), 16
threads in the worker, four messages fetched ahead for each thread, answers made by orjson. It computes with semel's
fake model, so that the device costs both sides the same. Its Redis keeps jobs and results in memory only.
"""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path

import httpx
import orjson
from celery import Celery
from celery.result import AsyncResult
from fastapi import FastAPI, Response
from pydantic import BaseModel

from semel.backends.fake import FakeBackend, FakeOptions
from semel.cli.work.parts import Part, free_port, redis_part
from semel.cli.work.stack import Stack
from semel.settings import own_redis_url

THREADS = 16

_REDIS_URL = os.environ.get("PEER_REDIS_URL", "redis://127.0.0.1:6379/0")

queue = Celery("peer", broker=_REDIS_URL, backend=_REDIS_URL)
queue.conf.update(
    accept_content=["json"],
    task_serializer="json",
    result_serializer="json",
    task_acks_late=False,
    worker_prefetch_multiplier=4,
    broker_connection_retry_on_startup=True,
)
model = FakeBackend("fake", FakeOptions(dim=384), device="cpu")
web = FastAPI()


class Submission(BaseModel):
    """The body of a job."""

    text: str


@queue.task  # type: ignore[untyped-decorator]  # Celery has no types
def embed(text: str) -> list[float]:
    """Compute the vector of a text."""
    vector: list[float] = model.forward(model.tokenize([text]))[0].tolist()
    return vector


@web.post("/jobs", status_code=202)
async def submit(body: Submission) -> dict[str, str]:
    """Send a text to the queue."""
    return {"id": embed.delay(body.text).id}


@web.get("/jobs/{job_id}")
async def result(job_id: str) -> Response:
    """Return the vector, or 202 while there is none."""
    found = AsyncResult(job_id, app=queue)
    if not found.ready():
        return Response(status_code=202)
    return Response(orjson.dumps({"vector": found.result}), media_type="application/json")


@contextmanager
def hand_written_service(home: Path) -> Iterator[str]:
    """Run Redis, one API process and one worker on free ports; yields the URL of the API."""
    port, redis_port = free_port(), free_port()
    here = "benchmarks.peer_small"
    uvicorn = ["uvicorn", f"{here}:web", "--port", str(port), "--no-access-log", "--log-level", "error"]
    celery = ["celery", "-A", f"{here}:queue", "worker", "--pool", "threads", "--concurrency", str(THREADS)]
    stack = Stack(StringIO())
    try:
        stack.start(redis_part(redis_port, home))
        redis = {"PEER_REDIS_URL": own_redis_url(home, redis_port)}
        stack.start(Part("peer api", [sys.executable, "-m", *uvicorn], redis))
        stack.start(Part("peer worker", [sys.executable, "-m", *celery, "--loglevel", "error"], redis))
        url = f"http://127.0.0.1:{port}"
        _wait_until_answers(url)
        yield url
    finally:
        stack.stop()


def _wait_until_answers(url: str) -> None:
    for _ in range(300):
        try:
            httpx.get(url)
            return
        except httpx.TransportError:
            time.sleep(0.1)
    raise SystemExit("the hand-written service did not start within 30 s")
