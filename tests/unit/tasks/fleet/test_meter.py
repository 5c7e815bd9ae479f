"""The counters of a worker."""

import sys
import threading
from collections.abc import Iterator

import pytest

from semel.tasks.fleet import meter as meter_module
from semel.tasks.fleet.meter import Message, Meter, Work
from semel.values.text import Outcome
from tests.support.fleet import Clock


@pytest.fixture
def meter(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Meter:
    """A meter whose clock stands still."""
    monkeypatch.setattr(meter_module, "time", clock)
    return Meter()


def message(
    outcomes: dict[Outcome, int] | None = None, *, sent_at: float | None = 990.0, started_at: float = 997.0
) -> Message:
    return Message("m", sent_at, started_at, {Outcome.COMPUTED: 1} if outcomes is None else outcomes)


def total(meter: Meter) -> Work:
    return meter.work(computed=0, tokens=0, padded_tokens=0)


def test_each_text_is_counted_by_its_outcome(meter: Meter) -> None:
    meter.record(message({Outcome.HIT: 3, Outcome.COMPUTED: 2}))
    meter.record(message({Outcome.COALESCED: 4, Outcome.FAILED: 1}))
    work = total(meter)
    assert (work.requests, work.texts, work.hits, work.coalesced, work.failed) == (2, 10, 3, 4, 1)


def test_texts_count_as_computed_when_their_batch_ends_not_when_their_message_does(meter: Meter) -> None:
    meter.record(message({Outcome.COMPUTED: 2}))
    assert meter.work(computed=5, tokens=50, padded_tokens=60).computed == 5
    work = meter.work(computed=6, tokens=70, padded_tokens=80)
    assert (work.computed, work.tokens, work.padded_tokens) == (6, 70, 80), "the counters of the device, not their sum"


def test_the_time_in_the_queue_is_kept_apart_from_the_time_of_the_work(meter: Meter, clock: Clock) -> None:
    meter.record(message(sent_at=clock.now - 10, started_at=clock.now - 3))
    work = total(meter)
    assert (work.queued_s, work.worked_s) == (7.0, 3.0)
    assert work.recent_ms == [10_000.0]
    assert work.last_request_at == clock.now


def test_clocks_of_two_hosts_that_differ_make_no_negative_time(meter: Meter, clock: Clock) -> None:
    meter.record(message(sent_at=clock.now + 5, started_at=clock.now + 2))
    work = total(meter)
    assert (work.queued_s, work.worked_s, work.recent_ms) == (0.0, 0.0, [0.0])


def test_a_message_without_a_time_of_sending_waited_for_no_known_time() -> None:
    assert message(sent_at=None).queued_s == 0.0


def test_only_the_latest_latencies_are_kept_so_that_a_card_stays_small(meter: Meter, clock: Clock) -> None:
    for i in range(200):
        meter.record(message(sent_at=None, started_at=clock.now - i / 1000))
    recent = list(total(meter).recent_ms)
    assert recent == pytest.approx(list(range(72, 200)))
    assert total(meter).requests == 200


@pytest.mark.parametrize(("share", "expected"), [(0.5, 50.0), (0.99, 99.0), (1.0, 100.0), (0.001, 1.0)])
def test_a_percentile_is_a_latency_that_occurred(share: float, expected: float) -> None:
    shuffled = [float((i * 37) % 100 + 1) for i in range(100)]
    assert Work(recent_ms=shuffled).latency_ms(share) == expected


def test_there_is_no_latency_before_the_first_message() -> None:
    assert Work().latency_ms(0.5) is None


def test_the_counters_of_two_workers_can_be_added() -> None:
    one = Work(1, 2, 3, 4, 5, 6, 7.0, 8.0, 9, 10, [1.0], last_request_at=50.0)
    two = Work(10, 20, 30, 40, 50, 60, 70.0, 80.0, 90, 100, [2.0], last_request_at=40.0)
    assert one + two == Work(11, 22, 33, 44, 55, 66, 77.0, 88.0, 99, 110, [1.0, 2.0], last_request_at=50.0)
    assert (one + Work()).last_request_at == 50.0
    assert (Work() + Work()).last_request_at is None


@pytest.fixture
def restless_threads() -> Iterator[None]:
    """Threads take turns so often that an unlocked counter loses something."""
    usual_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(usual_s)


@pytest.mark.usefixtures("restless_threads")
def test_threads_lose_no_count() -> None:
    meter = Meter()

    def record() -> None:
        for _ in range(300):
            meter.record(message({Outcome.HIT: 2}))

    threads = [threading.Thread(target=record) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (total(meter).requests, total(meter).hits) == (1200, 2400)
