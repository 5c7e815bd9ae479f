"""A server that has more work than it is allowed to keep waiting."""

from collections.abc import Iterator

import httpx
import openai
import pytest

from semel.client import Client
from semel.errors import UnavailableError
from tests.support.processes import Processes, processes, wait_until


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    """20 ms a text, and 2,000 texts in the bulk lane: some 40 s of work where 5 may wait."""
    folder = tmp_path_factory.mktemp("busy")
    bounds = {"SEMEL_MAX_BULK_QUEUE_S": "5", "SEMEL_MAX_INTERACTIVE_QUEUE_S": "5", "SEMEL_MAX_BATCH_TOKENS": "64"}
    with processes(folder, model="text_ms=20", **bounds) as running:
        running.client.embed(["known before"], model="fake")  # gives the worker a rate
        wait_until(lambda: httpx.get(f"{running.url}/health/backends").json()[0]["texts_per_s"] > 0)
        job = running.client.submit([f"waits {i}" for i in range(2000)], model="fake")
        yield running
        running.client.cancel(job.id)


def test_a_job_is_refused_with_the_time_to_come_back(busy: Processes) -> None:
    def refused() -> bool:
        answer = httpx.post(f"{busy.url}/v1/jobs", json={"model": "fake", "input": ["one more"]})
        if answer.status_code != 429:
            return False
        assert 1 <= int(answer.headers["retry-after"]) <= 60
        assert answer.json()["error"]["code"] == "rate_limit_exceeded"
        return True

    wait_until(refused, timeout_s=10)
    before = len(busy.client.jobs())
    assert httpx.post(f"{busy.url}/v1/jobs", json={"model": "fake", "input": ["again"]}).status_code == 429
    assert len(busy.client.jobs()) == before, "nothing was written"
    with Client(busy.url) as client, pytest.raises(UnavailableError, match="s of work wait on cpu"):
        client.submit(["a third"], model="fake")


def test_hits_and_the_other_lane_go_on(busy: Processes) -> None:
    with openai.OpenAI(base_url=f"{busy.url}/v1", api_key="any", max_retries=0) as client:
        for text in ("known before", "a new one, asked for by somebody who waits"):
            assert len(client.embeddings.create(model="fake", input=text).data[0].embedding) == 16
