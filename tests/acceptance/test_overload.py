"""A server with more waiting work than its limits allow."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import httpx
import openai
import pytest

from semel.client import Client
from semel.errors import ConflictError, OverloadedError
from tests.support.processes import Processes, processes, wait_until


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    """A server with 2,000 texts of 20 ms each in the bulk lane: about 40 s of work where only 5 s may wait."""
    folder = tmp_path_factory.mktemp("busy")
    bounds = {"SEMEL_MAX_BULK_QUEUE_S": "5", "SEMEL_MAX_INTERACTIVE_QUEUE_S": "5", "SEMEL_MAX_BATCH_TOKENS": "64"}
    with processes(folder, model="text_ms=20", **bounds) as running:
        running.client.embed(["known before"], model="fake")  # gives the worker a rate
        wait_until(lambda: httpx.get(f"{running.url}/health/backends").json()[0]["texts_per_s"] > 0)
        running.client.cancel(running.client.submit([f"given up {i}" for i in range(100)], model="fake").id)
        job = running.client.submit([f"waits {i}" for i in range(2000)], model="fake")
        yield running
        with suppress(ConflictError):  # on a slow machine it has ended by now
            running.client.cancel(job.id)


def test_a_job_is_refused_with_the_time_to_come_back(busy: Processes) -> None:
    def refused() -> bool:
        answer = httpx.post(f"{busy.url}/v1/jobs", json={"model": "fake", "input": ["one more"]})
        if answer.status_code != 429:
            return False
        assert 1 <= int(answer.headers["retry-after"]) <= 600
        assert answer.json()["error"]["code"] == "rate_limit_exceeded"
        return True

    wait_until(refused, timeout_s=10)
    before = len(busy.client.jobs())
    assert httpx.post(f"{busy.url}/v1/jobs", json={"model": "fake", "input": ["again"]}).status_code == 429
    assert len(busy.client.jobs()) == before, "nothing was written"
    estimate = httpx.post(f"{busy.url}/v1/jobs/estimate", json={"model": "fake", "input": ["again"]})
    assert estimate.status_code == 429, "better now than after the upload of the job"
    with Client(busy.url) as client, pytest.raises(OverloadedError, match="s of work wait on cpu") as refusal:
        client.submit(["a third"], model="fake")
    assert 1 <= refusal.value.retry_after_s <= 600


def test_a_retry_is_refused_like_a_new_job(busy: Processes) -> None:
    ended = [job for job in busy.client.jobs() if job.status.ended]
    job = ended[0] if ended else None
    assert job is not None, "the fixture cancels one"
    assert httpx.post(f"{busy.url}/v1/jobs/{job.id}/retry").status_code == 429


def test_hits_and_the_interactive_lane_are_still_served(busy: Processes) -> None:
    with openai.OpenAI(base_url=f"{busy.url}/v1", api_key="any", max_retries=0) as client:
        for text in ("known before", "a new one, asked for by somebody who waits"):
            assert len(client.embeddings.create(model="fake", input=text).data[0].embedding) == 16


def test_the_openai_client_waits_as_long_as_retry_after_asks(tmp_path: Path) -> None:
    """A large request holds the interactive lane for some seconds; a second one is refused, waits, and is served."""
    seen: list[tuple[float, int, str]] = []

    def note(answer: httpx.Response) -> None:
        seen.append((time.monotonic(), answer.status_code, answer.headers.get("retry-after", "")))

    bounds = {"SEMEL_MAX_INTERACTIVE_QUEUE_S": "2", "SEMEL_MAX_BATCH_TOKENS": "64"}
    with processes(tmp_path, model="text_ms=20", **bounds) as running, ThreadPoolExecutor(1) as pool:
        running.client.embed(["gives the worker a rate"], model="fake")
        wait_until(lambda: httpx.get(f"{running.url}/health/backends").json()[0]["texts_per_s"] > 0)
        large = [f"{i} " + "x" * 300 for i in range(400)]
        body = {"model": "fake", "input": large}
        first = pool.submit(httpx.post, f"{running.url}/v1/embeddings", json=body, timeout=60)
        time.sleep(1.5)  # the estimate of the waiting work is at most a second old
        with (
            httpx.Client(event_hooks={"response": [note]}, timeout=60) as http,
            openai.OpenAI(base_url=f"{running.url}/v1", api_key="any", max_retries=5, http_client=http) as client,
        ):
            answer = client.embeddings.create(model="fake", input="who comes second")
        assert len(answer.data[0].embedding) == 16
        assert first.result().status_code == 200
    assert seen[0][1] == 429
    assert seen[-1][1] == 200
    for (refused_at, status, retry_after), (asked_at, _, _) in pairwise(seen):
        assert status == 429
        assert asked_at - refused_at >= int(retry_after) - 0.1, "it waited as long as it was told"
