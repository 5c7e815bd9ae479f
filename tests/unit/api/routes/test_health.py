"""/health in this process."""

from collections.abc import Callable
from typing import Any

import pytest
import redis

from semel.errors import StorageFullError
from tests.support.service import Service
from tests.support.workers import no_worker


def test_a_live_process_answers_whatever_is_missing(api: Service) -> None:
    with no_worker(api):
        answer = api.http.get("/health/live")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


def test_ready_names_every_part(api: Service) -> None:
    answer = api.http.get("/health/ready")
    parts = {"database": "ok", "redis": "ok", "workers": "ok", "sweeps": "ok"}
    assert (answer.status_code, answer.json()) == (200, {"ready": True, "parts": parts})


def test_without_a_worker_it_is_not_ready_and_says_how_to_start_one(api: Service) -> None:
    with no_worker(api):
        answer = api.http.get("/health/ready")
    assert (answer.status_code, answer.json()["ready"]) == (503, False)
    assert answer.json()["parts"] == {
        "database": "ok", "redis": "ok", "workers": "no worker is alive; start one: semel worker --device cpu",
        "sweeps": "ok",
    }  # fmt: skip


def fails(error: Exception) -> Callable[..., Any]:
    def raising(*_: Any, **__: Any) -> None:
        raise error

    return raising


def test_without_redis_both_parts_that_need_it_are_named(api: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    down = redis.ConnectionError("refused")
    monkeypatch.setattr(api.services.fleet.redis, "set", fails(down))
    monkeypatch.setattr(api.services.fleet.redis, "smembers", fails(down))
    answer = api.http.get("/health/ready")
    parts = answer.json()["parts"]
    assert (answer.status_code, parts["database"]) == (503, "ok")
    assert all("Redis does not answer" in parts[name] for name in ("redis", "workers"))


def test_a_database_that_does_not_answer_is_named(api: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api.services.stores.db, "ping", fails(StorageFullError("here")))
    answer = api.http.get("/health/ready")
    assert (answer.status_code, answer.json()["parts"]["redis"]) == (503, "ok")
    assert "is full" in answer.json()["parts"]["database"]


def test_backends_lists_the_pools_with_their_workers(api: Service) -> None:
    (pool,) = api.http.get("/health/backends").json()
    assert (pool["device"], pool["status"], pool["texts_per_s"]) == ("cpu", "healthy", 1000.0)
    assert {"fake", "prompted", "reranker"} <= set(pool["models"])
    assert [worker["id"] for worker in pool["workers"]] == ["inline"]


def test_without_a_worker_there_is_no_pool(api: Service) -> None:
    with no_worker(api):
        assert api.http.get("/health/backends").json() == []


def test_without_redis_the_pools_are_503(api: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api.services.fleet.redis, "smembers", fails(redis.ConnectionError("refused")))
    answer = api.http.get("/health/backends")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "service_unavailable")
