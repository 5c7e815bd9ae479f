"""The page's event stream and the machine's inventory in this process."""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

from semel.errors import UnavailableError
from tests.support.service import Service, service


@pytest.fixture
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """An API of its own: its streams are ended."""
    with service(tmp_path_factory.mktemp("watched")) as running:
        yield running


def events(api: Service) -> dict[str, Any]:
    """The first reading of /v1/events, by event; the server then ends the stream."""
    assert api.http.portal is not None
    live = api.app.state.lives.of(None)
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(api.http.get, "/v1/events")
        deadline = time.monotonic() + 10
        while live._frame.number == 0:
            assert time.monotonic() < deadline, "nothing was read"
            time.sleep(0.01)
        api.http.portal.call(live.stop)
        answer = reading.result(10)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["x-accel-buffering"] == "no"
    parts = [block.split("\n") for block in answer.text.strip().split("\n\n") if block.startswith("event: ")]
    return {name.removeprefix("event: "): json.loads(data.removeprefix("data: ")) for name, data in parts}


def test_the_stream_begins_with_history_overview_and_jobs(watched: Service) -> None:
    job = watched.http.post("/v1/jobs", json={"input": ["one", "two"]}).json()
    seen = events(watched)
    assert list(seen) == ["history", "overview", "jobs"]
    assert [pool["device"] for pool in seen["overview"]["pools"]] == ["cpu"]
    assert seen["overview"]["ready"] == {
        "ready": True,
        "parts": {"database": "ok", "redis": "ok", "workers": "ok", "sweeps": "ok"},
    }
    assert [(entry["job"]["id"], entry["done"]) for entry in seen["jobs"]] == [(job["id"], 2)]


def test_a_part_that_does_not_answer_is_an_event(watched: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    def down() -> None:
        raise UnavailableError("Redis does not answer")

    monkeypatch.setattr(watched.services.watch.roster, "live", down)
    seen = events(watched)
    assert seen["trouble"] == {"code": "service_unavailable", "message": "Redis does not answer"}
    assert "overview" not in seen


def test_the_inventory_shows_devices_and_models(api: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    device = {"name": "cuda:0", "usable": False, "why": "no GPU", "software": False}

    async def look() -> Any:
        return SimpleNamespace(devices=[{**device, "more": "is left out"}], models=[{"name": "fake"}])

    monkeypatch.setattr(api.services.watch.machine, "look", look)
    assert api.http.get("/v1/inventory").json() == {"devices": [device], "models": [{"name": "fake"}]}


def test_a_machine_that_cannot_be_examined_is_503(api: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    async def look() -> Any:
        raise UnavailableError("'semel devices' did not answer")

    monkeypatch.setattr(api.services.watch.machine, "look", look)
    answer = api.http.get("/v1/inventory")
    assert (answer.status_code, answer.json()["error"]["message"]) == (503, "'semel devices' did not answer")
