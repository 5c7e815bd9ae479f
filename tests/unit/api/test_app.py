"""The application: how it starts and ends, and which routes answer while all its threads wait."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from anyio import CapacityLimiter
from fastapi.testclient import TestClient

from semel.api import app as api_app
from semel.api.app import create_app
from semel.api.edge import joint_steps
from semel.api.edge import waiting as waiting_module
from semel.errors import BadInputError, UnavailableError
from semel.settings import Settings
from tests.support.service import Service, service

# Start and end


def test_the_services_are_built_when_the_application_starts(tmp_path: Path) -> None:
    def build(_: Settings) -> Any:
        raise UnavailableError("the database does not answer")

    app = create_app(Settings(home=tmp_path), build=build)
    with pytest.raises(UnavailableError, match="the database does not answer"), TestClient(app):
        pass


def test_a_key_that_is_not_valid_stops_the_creation(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="one of read, submit, admin"):
        create_app(Settings(home=tmp_path, api_keys="sk:everything"))  # type: ignore[arg-type]


def threads() -> Counter[str]:
    return Counter(thread.name for thread in threading.enumerate())


def test_background_threads_run_exactly_as_long_as_the_application(tmp_path: Path) -> None:
    names = (
        "batches",
        "failover",
        "sweep",
        "cache size",
        "use of spaces",
        "throughput",
        "ended jobs",
        "rates",
        "doorbell",
        "courier",
        "requests",
        "small jobs",
    )
    before = threads()
    with service(tmp_path):
        started = threads() - before
        assert {name: started[name] for name in names} == dict.fromkeys(names, 1)
    assert {name: threads()[name] for name in names} == {name: before[name] for name in names}


def test_two_requests_share_the_services(api: Service) -> None:
    assert api.app.state.services is api.services
    assert api.http.get("/health/live").status_code == 200
    assert api.app.state.services is api.services


# Many requests wait for a worker

WAITING = 30

ROUTES = [
    "/health/live", "/metrics", "/openapi.json", "/docs", "/", "/page/app.js", "/health", "/health/ready",
    "/health/backends", "/v1/models", "/v1/cache", "/v1/jobs", "/v1/files", "/v1/batches", "/info",
]  # fmt: skip


def wait_for(true: Any) -> None:
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.fixture
def waiting(tmp_path: Path) -> Iterator[Service]:
    """An API with three threads for routes and one for look-ups, and many requests that a worker does not answer."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(api_app, "_THREADS", 3)
        patch.setattr(joint_steps, "_THREADS", 1)
        patch.setattr(waiting_module, "_LARGE", CapacityLimiter(1))
        with service(tmp_path) as api, ThreadPoolExecutor(WAITING) as askers:
            embed(api, "cached before")
            api.worker.paused = True
            asked = [askers.submit(embed, api, f"waits {i}") for i in range(WAITING)]
            wait_for(lambda: api.services.fleet.outbox.texts("cpu") == WAITING)
            yield api
            assert not any(request.done() for request in asked)
            resume(api)
            assert [request.result(10).status_code for request in asked] == [200] * WAITING


def embed(api: Service, text: str) -> Any:
    return api.http.post("/v1/embeddings", json={"input": text})


def resume(api: Service) -> None:
    """Let the worker answer everything that it has dropped, as if it was sent again."""
    api.worker.paused = False
    outbox = api.services.fleet.outbox
    outbox.send_again([each for each in outbox.pending() if each.message is not None], after_death=False)


def test_every_route_answers_while_requests_wait_for_a_worker(waiting: Service) -> None:
    assert {route: waiting.http.get(route).status_code for route in ROUTES} == dict.fromkeys(ROUTES, 200)


def test_hits_and_submissions_are_answered_while_requests_wait_for_a_worker(waiting: Service) -> None:
    assert embed(waiting, "cached before").headers["x-semel-cache"] == "hits=1; computed=0; coalesced=0"
    assert waiting.http.post("/v1/jobs", json={"input": ["cached before"]}).json()["status"] == "completed"
    upload = waiting.http.post("/v1/files", files={"file": ("a.jsonl", b"{}")}, data={"purpose": "batch"})
    assert upload.status_code == 200
