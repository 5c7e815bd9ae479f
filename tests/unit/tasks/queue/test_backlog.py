"""The estimate of the work that waits, and the refusal of more."""

from types import SimpleNamespace

import pytest

from semel.errors import OverloadedError, UnavailableError
from semel.tasks.fleet.card import ModelRate
from semel.tasks.jobs.counts import JobCounts, WaitingWork
from semel.tasks.queue.backlog import Backlog
from semel.values.text import Lane
from tests.support.fleet import OTHER, SPACE, Clock, Fleet


@pytest.fixture
def asked() -> dict[str, int]:
    """The texts of requests that wait, by kind of device."""
    return {}


@pytest.fixture
def backlog(fleet: Fleet, asked: dict[str, int], clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Backlog:
    """Allows 10 s of bulk work and 2 s of interactive work."""
    monkeypatch.setattr("semel.kept.time", clock)
    bounds = {Lane.BULK: 10.0, Lane.INTERACTIVE: 2.0}
    requests = SimpleNamespace(texts=lambda device: asked.get(device, 0), devices=lambda: list(asked))
    return Backlog(JobCounts(fleet.db), fleet.roster, fleet.redis, requests=requests, max_s=bounds)


def test_the_estimate_is_the_waiting_texts_over_the_measured_rate(backlog: Backlog, fleet: Fleet) -> None:
    fleet.join("cpu", texts_per_s=4.0)
    fleet.submit(chunks=6)
    assert backlog.seconds(Lane.BULK, "cpu") == 1.5


def test_the_rates_of_all_workers_of_a_kind_add_up(backlog: Backlog, fleet: Fleet) -> None:
    fleet.join("cuda:0", texts_per_s=4.0)
    fleet.join("cuda:1", OTHER, texts_per_s=8.0)
    fleet.join("cpu", texts_per_s=100.0)
    assert backlog.rate("cuda") == 12.0
    assert backlog.rate("mps") == 0.0


def test_the_estimate_counts_the_tokens_of_each_model_at_its_rate(backlog: Backlog, fleet: Fleet) -> None:
    fleet.join("cpu", texts_per_s=4.0, rates={SPACE.model: ModelRate(100.0, 50.0)})
    fleet.submit(chunks=6)
    assert backlog.seconds(Lane.BULK, "cpu") == 6 * 50 / 100


def test_a_kept_rate_is_enough_for_a_forecast(backlog: Backlog, fleet: Fleet) -> None:
    fleet.join("cpu", texts_per_s=0.0, rates={SPACE.model: ModelRate(100.0, 50.0)})
    fleet.join("cpu", texts_per_s=0.0, id="second", rates={SPACE.model: ModelRate(300.0, 50.0)})
    fleet.submit(chunks=8)
    assert backlog.seconds(Lane.BULK, "cpu") == 8 * 50 / 400


def test_without_a_rate_the_seconds_are_unknown_and_not_zero(backlog: Backlog, fleet: Fleet) -> None:
    fleet.join("cpu", texts_per_s=0.0, rates={"another": ModelRate(100.0, 50.0), SPACE.model: ModelRate(0.0, 0.0)})
    assert backlog.known_seconds(Lane.BULK, "cpu", waiting=[]) == 0.0
    waiting = [WaitingWork(Lane.BULK, "cpu", SPACE.model, 5, None)]
    assert backlog.known_seconds(Lane.BULK, "cpu", waiting=waiting) is None


def test_a_text_whose_rate_is_not_known_does_not_hide_the_work_whose_rate_is(
    backlog: Backlog, fleet: Fleet, asked: dict[str, int]
) -> None:
    fleet.join("cpu", texts_per_s=0.0, rates={SPACE.model: ModelRate(100.0, 50.0)})
    fleet.submit(chunks=40)
    asked["cpu"] = 1
    assert backlog.seconds(Lane.BULK, "cpu") == 40 * 50 / 100
    with pytest.raises(OverloadedError):
        backlog.check(Lane.BULK, "cpu")


def test_nothing_is_refused_while_no_worker_has_measured_its_rate(backlog: Backlog, fleet: Fleet) -> None:
    fleet.join("cpu", texts_per_s=0.0)
    fleet.submit(chunks=50)
    assert backlog.seconds(Lane.BULK, "cpu") == 0.0
    backlog.check(Lane.BULK, "cpu")


def test_bulk_waits_for_interactive_work_but_not_the_reverse(backlog: Backlog, fleet: Fleet) -> None:
    fleet.join("cpu", texts_per_s=1.0)
    fleet.submit("bulk", chunks=5)
    fleet.submit("interactive", chunks=3, lane=Lane.INTERACTIVE)
    assert backlog.seconds(Lane.INTERACTIVE, "cpu") == 3.0
    assert backlog.seconds(Lane.BULK, "cpu") == 8.0


def test_every_text_of_a_request_counts_wherever_it_waits(
    backlog: Backlog, fleet: Fleet, asked: dict[str, int]
) -> None:
    fleet.join("cpu", texts_per_s=1.0)
    asked["cpu"] = 2
    assert backlog.seconds(Lane.INTERACTIVE, "cpu") == 2.0
    assert backlog.seconds(Lane.BULK, "cpu") == 2.0


def test_requests_count_at_once(backlog: Backlog, fleet: Fleet, asked: dict[str, int]) -> None:
    fleet.join("cpu", texts_per_s=1.0)
    for texts in range(3):
        asked["cpu"] = texts
        backlog.check(Lane.INTERACTIVE, "cpu")
    asked["cpu"] = 3
    with pytest.raises(OverloadedError, match="about 3 s of work wait on cpu in the interactive lane"):
        backlog.check(Lane.INTERACTIVE, "cpu")


def test_the_messages_of_a_queue_are_counted(backlog: Backlog, fleet: Fleet) -> None:
    fleet.redis.lpush("interactive.cpu", "message", "message")
    assert backlog.messages(Lane.INTERACTIVE, "cpu") == 2


def test_work_for_another_device_does_not_count(backlog: Backlog, fleet: Fleet) -> None:
    for device in ("cpu", "mps"):
        fleet.join(device, texts_per_s=1.0)
    fleet.submit(chunks=5, device="mps")
    assert backlog.seconds(Lane.BULK, "cpu") == 0.0


def test_more_work_is_refused_with_the_time_until_there_is_room(backlog: Backlog, fleet: Fleet) -> None:
    fleet.join("cpu", texts_per_s=1.0)
    fleet.submit(chunks=17)
    with pytest.raises(OverloadedError, match=r"17 s of work wait on cpu in the bulk lane \(at most 10 s") as refused:
        backlog.check(Lane.BULK, "cpu")
    assert refused.value.retry_after_s == 7.0


def test_a_client_is_never_asked_to_return_within_a_second(backlog: Backlog, fleet: Fleet) -> None:
    fleet.join("cpu", texts_per_s=10.0)
    fleet.submit(chunks=21, lane=Lane.INTERACTIVE)
    with pytest.raises(OverloadedError) as refused:
        backlog.check(Lane.INTERACTIVE, "cpu")
    assert refused.value.retry_after_s == 1.0


def test_a_queue_at_its_bound_accepts_more(backlog: Backlog, fleet: Fleet) -> None:
    fleet.join("cpu", texts_per_s=1.0)
    fleet.submit(chunks=10)
    backlog.check(Lane.BULK, "cpu")


def test_requests_share_an_estimate_for_a_second(backlog: Backlog, fleet: Fleet, clock: Clock) -> None:
    fleet.join("cpu", texts_per_s=1.0)
    assert backlog.seconds(Lane.BULK, "cpu") == 0.0
    fleet.submit(chunks=5)
    clock.now += 0.9
    assert backlog.seconds(Lane.BULK, "cpu") == 0.0
    clock.now += 0.2
    assert backlog.seconds(Lane.BULK, "cpu") == 5.0


def test_without_redis_the_estimate_is_an_error_and_not_zero(backlog: Backlog, fleet: Fleet, clock: Clock) -> None:
    fleet.join("cpu", SPACE, texts_per_s=1.0)
    fleet.server.connected = False
    clock.now += 2
    with pytest.raises(UnavailableError):
        backlog.messages(Lane.BULK, "cpu")
    with pytest.raises(UnavailableError):
        backlog.check(Lane.BULK, "cpu")
