"""Whether every part answers."""

import pytest

from semel.api.watch.readiness import readiness
from semel.errors import UnavailableError
from tests.support.parts import Parts
from tests.support.service import Service


def fine() -> None:
    """A part that answers."""


def away() -> None:
    raise UnavailableError("Redis does not answer at 127.0.0.1")


def test_it_is_ready_when_every_part_answers() -> None:
    found = readiness({"database": fine, "redis": fine})
    assert (found.ready, found.parts) == (True, {"database": "ok", "redis": "ok"})


def test_a_part_that_does_not_answer_is_named_and_the_others_are_asked() -> None:
    found = readiness({"redis": away, "database": fine})
    assert (found.ready, found.parts) == (False, {"redis": "Redis does not answer at 127.0.0.1", "database": "ok"})


def test_without_parts_it_is_ready() -> None:
    assert readiness({}).ready


def test_a_bug_in_a_ping_is_not_hidden() -> None:
    def broken() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        readiness({"database": broken})


def test_the_services_are_ready_with_a_worker_and_a_redis(running: Parts) -> None:
    assert readiness(running.services.pings).parts == {"database": "ok", "redis": "ok", "workers": "ok", "sweeps": "ok"}
    with running.redis_gone():
        found = readiness(running.services.pings)
    assert (found.ready, found.parts["database"]) == (False, "ok")
    assert "Redis does not answer" in found.parts["redis"]


def test_the_services_are_not_ready_without_a_worker(running: Parts) -> None:
    running.worker.leave(running.services)
    found = readiness(running.services.pings)
    running.worker.beat(running.services)
    assert "no worker is alive" in found.parts["workers"]


def test_the_route_answers_503_and_says_why(api: Service) -> None:
    assert api.http.get("/health/ready").json() == {
        "ready": True,
        "parts": {"database": "ok", "redis": "ok", "workers": "ok", "sweeps": "ok"},
    }
    api.worker.leave(api.services)
    answer = api.http.get("/health/ready")
    api.worker.beat(api.services)
    assert (answer.status_code, answer.json()["ready"]) == (503, False)
