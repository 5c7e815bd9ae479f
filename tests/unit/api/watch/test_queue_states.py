"""How full each queue is."""

import time
from types import SimpleNamespace
from typing import Any

import pytest

from semel.api.watch.queue_states import QueueState, queue_states
from semel.errors import UnavailableError
from semel.tasks.fleet.card import WorkerCard
from semel.tasks.jobs.counts import Waiting, WaitingWork
from semel.tasks.queue.backlog import Backlog
from semel.values.text import Lane
from tests.support.parts import Parts

INTERACTIVE, BULK = Lane.INTERACTIVE, Lane.BULK


class Counts:
    """Stands for `JobCounts`."""

    def __init__(self, waiting: dict[tuple[Lane, str], Waiting]) -> None:
        self._waiting = waiting

    def waiting(self) -> dict[tuple[Lane, str], Waiting]:
        return self._waiting

    def now(self) -> float:
        return time.time()


class FixedBacklog(Backlog):
    """Every device has this rate, every queue this many messages; requests wait by device."""

    def __init__(self, rate: float = 100.0, messages: int = 0, asked: dict[str, int] | None = None) -> None:
        self._roster = SimpleNamespace(recently_live=list)  # type: ignore[assignment]
        self._rate, self._messages, self._asked = rate, messages, asked or {}

    def devices(self) -> list[str]:
        return list(self._asked)

    def requests(self, device: str) -> int:
        return self._asked.get(device, 0)

    def rate(self, _device: str) -> float:
        return self._rate

    def messages(self, _lane: Lane, _device: str) -> int:
        return self._messages


def card(device: str, worker_id: str = "w") -> WorkerCard:
    return WorkerCard(id=worker_id, device=device, host="h", pid=1, started_at=0.0)


def states(waiting: Any = None, live: tuple[WorkerCard, ...] = (), **backlog: Any) -> dict[str, QueueState]:
    found = queue_states(Counts(waiting or {}), FixedBacklog(**backlog), live)  # type: ignore[arg-type]
    return {state.queue: state for state in found}


def waits(lane: Lane, device: str, texts: int, oldest_sent_at: float | None = None) -> dict[Any, Waiting]:
    return {(lane, device): Waiting([WaitingWork(lane, device, "m", texts, None)], oldest_sent_at)}


def test_each_device_with_a_worker_has_two_queues() -> None:
    found = states(live=(card("cuda:0", "a"), card("cuda:1", "b"), card("cpu", "c")))
    assert list(found) == ["interactive.cpu", "bulk.cpu", "interactive.cuda", "bulk.cuda"]
    assert [state.workers for state in found.values()] == [1, 1, 2, 2]
    assert {state.work_s for state in found.values()} == {0.0}


def test_a_device_without_a_worker_is_shown_while_work_waits_for_it() -> None:
    found = states(waits(BULK, "mlx", 50))
    assert (found["bulk.mlx"].texts, found["bulk.mlx"].workers) == (50, 0)
    assert states() == {}


def test_the_bulk_lane_waits_for_the_interactive_one_too() -> None:
    found = states(waits(INTERACTIVE, "cpu", 200) | waits(BULK, "cpu", 300))
    assert (found["interactive.cpu"].work_s, found["bulk.cpu"].work_s) == (2.0, 5.0)
    assert (found["interactive.cpu"].texts, found["bulk.cpu"].texts) == (200, 300)


def test_the_texts_of_requests_count_wherever_they_wait() -> None:
    found = states(live=(card("cpu"),), messages=3, asked={"cpu": 100})
    assert (found["interactive.cpu"].work_s, found["bulk.cpu"].work_s) == (1.0, 1.0)
    assert (found["interactive.cpu"].texts, found["bulk.cpu"].texts) == (100, 0)
    assert found["bulk.cpu"].messages == 3
    assert set(states(asked={"mlx": 1})) == {"interactive.mlx", "bulk.mlx"}


def test_without_a_rate_the_time_of_what_waits_is_unknown() -> None:
    found = states(waits(BULK, "cpu", 10), rate=0.0)
    assert (found["interactive.cpu"].work_s, found["bulk.cpu"].work_s) == (0.0, None)


def test_the_age_is_that_of_the_oldest_message() -> None:
    found = states(waits(BULK, "cpu", 1, time.time() - 60) | waits(INTERACTIVE, "cpu", 1, time.time() + 60))
    assert found["bulk.cpu"].oldest_s == pytest.approx(60, abs=1)
    assert found["interactive.cpu"].oldest_s == 0.0, "the clock of another host may be ahead"


def test_without_redis_there_is_no_state(running: Parts) -> None:
    stores, fleet = running.services.stores, running.services.fleet
    live = fleet.roster.live()
    assert {state.queue for state in queue_states(stores.counts, fleet.backlog, live)} == {
        "interactive.cpu",
        "bulk.cpu",
    }
    with running.redis_gone(), pytest.raises(UnavailableError):
        queue_states(stores.counts, fleet.backlog, live)
