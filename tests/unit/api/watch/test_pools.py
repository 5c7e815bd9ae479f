"""Device pools, summed up from the cards of their workers."""

from typing import Any

import pytest

from semel.api.watch.pools import Pool, pools
from semel.tasks.fleet.card import WorkerCard
from semel.tasks.fleet.meter import Work
from tests.support.service import Service


def card(worker_id: str, device: str = "cpu", **changed: Any) -> WorkerCard:
    return WorkerCard(id=worker_id, device=device, host=changed.pop("host", "h"), pid=1, started_at=0.0, **changed)


def pool(*cards: WorkerCard) -> Pool:
    (only,) = pools(cards, [])
    return only


def test_there_is_a_pool_for_each_kind_of_device_in_order() -> None:
    found = pools([card("a", "cuda:1"), card("b", "cpu"), card("c", "cuda:0")], [])
    assert [(one.device, [worker.id for worker in one.workers]) for one in found] == [
        ("cpu", ["b"]),
        ("cuda", ["a", "c"]),
    ]
    assert pools([], []) == []


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({"state": "ready", "loaded": ["m"]}, "healthy"),
        ({"state": "ready"}, "standby"),
        ({"state": "loading"}, "loading"),
        ({"state": "failed"}, "failed"),
        ({"state": "of a newer version"}, "loading"),
    ],
)
def test_the_status_of_a_worker(changed: dict[str, Any], status: str) -> None:
    assert pool(card("a", **changed)).status == status


def test_a_worker_that_is_still_looking_for_its_models_is_loading_and_serves_none() -> None:
    found = pool(card("a", state="loading", models=[], spaces=[]))
    assert (found.status, found.models, found.load_time_s, found.texts_per_s) == ("loading", [], 0.0, 0.0)
    both = pool(card("a", state="loading"), card("b", state="ready", models=["m"], loaded=["m"]))
    assert (both.status, both.models) == ("healthy", ["m"])


def test_a_pool_has_the_status_and_reason_of_its_best_worker() -> None:
    loading, ready = card("a", state="loading", why="loads"), card("b", loaded=["m"], why="is ready")
    found = pool(loading, ready)
    assert (found.status, found.why) == ("healthy", "is ready")
    assert [worker.status for worker in found.workers] == ["loading", "healthy"]


def test_a_device_that_was_found_unfit_is_shown_until_a_worker_runs_on_it() -> None:
    failed = card("old", "cuda:0", state="failed", why="out of order")
    (found,) = pools([], [failed])
    assert (found.status, found.why) == ("failed", "out of order")
    (found,) = pools([card("new", "cuda:0")], [failed])
    assert [worker.id for worker in found.workers] == ["new"]


@pytest.mark.parametrize("other", [card("new", "cuda:1"), card("new", "cuda:0", host="another")])
def test_a_worker_on_another_device_or_host_does_not_hide_it(other: WorkerCard) -> None:
    (found,) = pools([other], [card("old", "cuda:0", state="failed")])
    assert [worker.status for worker in found.workers] == ["standby", "failed"]


def test_the_figures_of_a_pool_are_those_of_all_its_workers() -> None:
    work = Work(
        requests=2, texts=20, hits=5, failed=1, queued_s=0.5, worked_s=1.5, tokens=80, padded_tokens=100,
        recent_ms=[100.0, 300.0], last_request_at=7.0,
    )  # fmt: skip
    one = card("a", work=work, texts_per_s=100.0, memory_bytes=10, load_s=3.0, models=["m", "n"], gpu_utilization=0.25)
    other = card("b", work=work, texts_per_s=50.0, memory_bytes=20, load_s=2.0, models=["m"], gpu_utilization=0.75)
    found = pool(one, other, card("c"))
    assert (found.total_requests, found.texts_per_s, found.memory_usage_bytes) == (4, 150.0, 30)
    assert (found.load_time_s, found.models, found.last_request) == (3.0, ["m", "n"], 7.0)
    assert (found.error_rate, found.cache_hit_rate, found.batch_efficiency) == (0.05, 0.25, 0.8)
    assert (found.queue_time_ms, found.latency_ms.avg) == (250.0, 1000.0)
    assert (found.latency_ms.p50, found.latency_ms.p95, found.latency_ms.p99) == (100.0, 300.0, 300.0)
    assert found.gpu_utilization == 0.5, "workers without a reading do not count"


def test_what_was_never_measured_is_null_and_not_zero() -> None:
    found = pool(card("a"))
    assert found.latency_ms.model_dump() == {"avg": None, "p50": None, "p95": None, "p99": None}
    assert (found.error_rate, found.cache_hit_rate, found.batch_efficiency, found.queue_time_ms) == (None,) * 4
    assert (found.gpu_utilization, found.last_request) == (None, None)


def test_an_idle_gpu_is_zero_and_not_null() -> None:
    assert pool(card("a", gpu_utilization=0.0)).gpu_utilization == 0.0


def test_a_worker_is_shown_with_all_that_its_card_has() -> None:
    made = card(
        "a", "cuda:0", about="a large GPU", dtype="bfloat16", models=["m", "n"], loaded=["m"], load_s=2.0,
        memory_bytes=9, memory_halvings=3, held_texts=2, texts_per_s=7.0, work=Work(requests=5),
    )  # fmt: skip
    (worker,) = pool(made).workers
    assert worker.model_dump() == {
        "id": "a", "device": "cuda:0", "about": "a large GPU", "host": "h", "pid": 1, "status": "healthy", "why": "",
        "dtype": "bfloat16", "models": ["m", "n"], "loaded": ["m"], "started_at": 0.0, "load_time_s": 2.0,
        "memory_usage_bytes": 9, "memory_halvings": 3, "total_requests": 5, "texts_per_s": 7.0,
        "held_texts": 2,
    }  # fmt: skip


def test_the_route_shows_the_pools(api: Service) -> None:
    (found,) = api.http.get("/health/backends").json()
    assert (found["device"], found["status"], found["workers"][0]["id"]) == ("cpu", "healthy", "inline")
