"""The application: how it starts and ends, and which routes answer while all its threads wait."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anyio.to_thread
import pytest
from fastapi.testclient import TestClient

from semel.api import app as api_app
from semel.api.app import create_app
from semel.errors import BadInputError, UnavailableError
from semel.settings import Settings
from tests.support.service import Service, service
from tests.support.workers import send_again

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


def test_requests_may_use_more_threads_than_anyios_default(api: Service) -> None:
    assert limiter(api).total_tokens == 200


# All threads wait

THREADS = 3

NO_SHARED_THREAD = ["/health/live", "/metrics", "/openapi.json", "/docs"]
"""Routes that need no thread, or have threads of their own."""

SHARED_THREAD = [
    "/", "/page/app.js", "/health", "/health/ready", "/health/backends", "/v1/models", "/v1/cache", "/v1/jobs",
    "/v1/files", "/v1/batches", "/info", "/v1/jobs/x/events",
]  # fmt: skip
"""Routes that take one of the shared threads today."""


def limiter(api: Service) -> Any:
    """What limits the shared threads, from the application's event loop."""
    assert api.http.portal is not None
    return api.http.portal.call(anyio.to_thread.current_default_thread_limiter)


def wait_for(true: Any) -> None:
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Service]:
    """An API with three threads, each of which waits for a worker that drops every message."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(api_app, "_THREADS", THREADS)
        with service(tmp_path) as api, ThreadPoolExecutor(THREADS) as askers:
            api.http.post("/v1/embeddings", json={"input": "cached before"})
            before = len(api.worker.sent)
            api.worker.paused = True
            waiting = [askers.submit(embed, api, f"waits {i}") for i in range(THREADS)]
            wait_for(lambda: limiter(api).borrowed_tokens == THREADS and len(api.worker.sent) == before + THREADS)
            yield api
            resume(api)
            assert [request.result(10).status_code for request in waiting] == [200] * THREADS


def embed(api: Service, text: str) -> Any:
    return api.http.post("/v1/embeddings", json={"input": text})


def resume(api: Service) -> None:
    """Let the worker answer everything that it has dropped."""
    api.worker.paused = False
    send_again(api, 0)


def test_routes_that_share_no_thread_answer_while_all_threads_wait(full: Service) -> None:
    assert {route: full.http.get(route).status_code for route in NO_SHARED_THREAD} == dict.fromkeys(
        NO_SHARED_THREAD, 200
    )


def test_the_page_readiness_and_cache_hits_wait_with_all_other_threads_today(full: Service) -> None:
    """Nothing that shares the threads answers before a waiting request does.

    A change that makes one of these routes answer fails here: move the route to `NO_SHARED_THREAD`.
    """
    with ThreadPoolExecutor(len(SHARED_THREAD) + 1) as askers:
        asking = {route: askers.submit(full.http.get, route) for route in SHARED_THREAD}
        asking["a hit"] = askers.submit(embed, full, "cached before")
        queued = limiter(full).statistics
        wait_for(lambda: queued().tasks_waiting == len(asking) or any(request.done() for request in asking.values()))
        assert [route for route, request in asking.items() if request.done()] == []
        resume(full)
        answered = {route: request.result(10).status_code for route, request in asking.items()}
    assert answered == {route: 404 if route == "/v1/jobs/x/events" else 200 for route in asking}
