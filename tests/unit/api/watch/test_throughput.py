"""Rates from counters that come and go."""

from dataclasses import replace

import pytest

from semel.api.watch import throughput as module
from semel.api.watch.throughput import Throughput
from semel.tasks.fleet.card import WorkerCard
from semel.tasks.fleet.meter import Work


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A moment that the test moves on."""
    now = [1000.0]
    monkeypatch.setattr(module.time, "time", lambda: now[0])
    return now


def card(computed: int, *, hits: int = 0, worker_id: str = "w", started_at: float = 0.0) -> WorkerCard:
    work = Work(computed=computed, hits=hits)
    return WorkerCard(id=worker_id, device="cpu", host="h", pid=1, started_at=started_at, work=work)


def test_points_are_texts_a_second(clock: list[float]) -> None:
    rates = Throughput()
    rates.sample([card(100)], hits_here=5)
    assert rates.last() is None
    clock[0] += 2
    rates.sample([card(300, hits=10)], hits_here=25)
    assert rates.as_plain() == [{"at": 1002.0, "hit": 15.0, "computed": 100.0, "coalesced": 0.0, "failed": 0.0}]


def test_a_worker_that_was_away_does_not_bring_its_whole_life(clock: list[float]) -> None:
    rates = Throughput()
    rates.sample([card(1_000_000)], hits_here=0)
    clock[0] += 2
    rates.sample([], hits_here=0)
    clock[0] += 2
    rates.sample([card(1_000_020), card(5_000_000, worker_id="older")], hits_here=0)
    last = rates.last()
    assert last is not None
    assert last["computed"] == 10.0


def test_a_new_worker_counts_from_its_start(clock: list[float]) -> None:
    rates = Throughput()
    rates.sample([], hits_here=0)
    clock[0] += 2
    rates.sample([card(30, started_at=1001.0)], hits_here=0)
    last = rates.last()
    assert last is not None
    assert last["computed"] == 15.0


def test_every_outcome_has_its_rate(clock: list[float]) -> None:
    rates, work = Throughput(), Work(hits=1, computed=2, coalesced=3, failed=4)
    worker = WorkerCard(id="w", device="cpu", host="h", pid=1, started_at=0.0)
    rates.sample([worker], hits_here=0)
    clock[0] += 2
    rates.sample([replace(worker, work=work)], hits_here=7)
    assert rates.last() == {"at": 1002.0, "hit": 4.0, "computed": 1.0, "coalesced": 1.5, "failed": 2.0}


def test_a_worker_that_counts_anew_gives_no_negative_rate(clock: list[float]) -> None:
    rates = Throughput()
    rates.sample([card(500)], hits_here=0)
    clock[0] += 2
    rates.sample([card(3)], hits_here=0)
    last = rates.last()
    assert last is not None
    assert last["computed"] == 0.0


def test_two_samples_at_one_moment_give_no_endless_rate(clock: list[float]) -> None:
    rates = Throughput()
    rates.sample([card(0)], hits_here=0)
    rates.sample([card(10)], hits_here=0)
    last = rates.last()
    assert last is not None
    assert last["computed"] == 100.0, "as if a tenth of a second had passed"


def test_points_of_a_quarter_of_an_hour_are_kept_the_oldest_first(clock: list[float]) -> None:
    rates = Throughput()
    for _ in range(500):
        clock[0] += 2
        rates.sample([], hits_here=0)
    points = rates.as_plain()
    assert len(points) == 450
    assert [points[0]["at"], points[-1]["at"]] == [1102.0, 2000.0]


def test_workers_that_are_long_gone_are_forgotten(clock: list[float]) -> None:
    rates = Throughput()
    for i in range(600):
        clock[0] += 2
        rates.sample([card(1, worker_id=f"worker {i}")], hits_here=0)
    assert len(rates._work) == 450
