"""The requests that a worker has taken, and which of them somebody still waits for."""

import time
from dataclasses import replace

import pytest
import redis

from semel.tasks.queue.doorbell import abandon, states, take
from semel.tasks.queue.message import Request
from semel.tasks.worker.held import HeldRequests
from tests.support.fleet import Clock, Fleet, requests_of


def request(name: str, *texts: str, left_s: float = 60.0) -> Request:
    return Request(name, list(texts or ("text",)), sent_at=time.time(), expires_at=time.time() + left_s)


@pytest.fixture
def held(fleet: Fleet) -> HeldRequests:
    return HeldRequests(fleet.redis, worker_id="cpu@host")


def test_a_worker_takes_what_nobody_else_has_taken(held: HeldRequests, fleet: Fleet) -> None:
    take(fleet.redis, requests_of("r2"), worker_id="mps@host")
    one, two, three = request("r1"), request("r2"), request("r3")
    assert held.take([one, two, three]) == [one, three], "in the order of the message"
    assert [state.worker for state in states(fleet.redis, ["r1", "r2", "r3"])] == ["cpu@host", "mps@host", "cpu@host"]


def test_a_second_copy_is_dropped_by_the_same_worker_too(held: HeldRequests) -> None:
    assert held.take([request("r1")])
    assert held.take([request("r1")]) == []


def test_a_late_request_is_dropped_and_not_taken(held: HeldRequests, fleet: Fleet) -> None:
    assert held.take([request("r1", left_s=-0.1)]) == []
    assert fleet.redis.keys("semel:request:*") == []


def test_the_clock_of_redis_decides_what_is_late(fleet: Fleet, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock of this host stands at 1970, decades behind that of Redis."""
    monkeypatch.setattr("semel.redis_client.time", clock)
    held = HeldRequests(fleet.redis, worker_id="cpu@host")
    assert [each.id for each in held.take([request("r1"), request("r2", left_s=-3600.0)])] == ["r1"]


def test_a_request_that_nobody_waits_for_is_dropped(held: HeldRequests, fleet: Fleet) -> None:
    abandon(fleet.redis, ["r1"])
    assert held.take([request("r1")]) == []


def test_without_redis_a_request_is_rather_computed_twice_than_lost(held: HeldRequests, fleet: Fleet) -> None:
    fleet.server.connected = False
    one = request("r1")
    assert held.take([one, request("r2", left_s=-1.0)]) == [one]


def test_a_client_that_goes_is_noticed_at_the_next_look(held: HeldRequests, fleet: Fleet) -> None:
    one, two = held.take([request("r1"), request("r2")])
    assert held.wants(one)
    abandon(fleet.redis, ["r1"])
    assert held.wants(one), "Redis is not asked for each text"
    held.look()
    assert (held.wants(one), held.wants(two)) == (False, True)


def test_a_request_whose_time_has_run_out_is_not_wanted(held: HeldRequests) -> None:
    (one,) = held.take([request("r1")])
    assert not held.wants(replace(one, expires_at=time.time() - 0.1))


def test_a_request_that_is_put_down_is_looked_for_no_longer(held: HeldRequests, fleet: Fleet) -> None:
    one, two = held.take([request("r1", "a", "b"), request("r2", "c")])
    assert held.texts == 3
    held.put_down([one])
    assert held.texts == 1
    abandon(fleet.redis, ["r1"])
    held.look()
    held.put_down([one, two])
    assert held.texts == 0
    assert held.wants(one), "nothing is remembered of it"


def test_a_look_without_requests_asks_nothing(held: HeldRequests, fleet: Fleet) -> None:
    fleet.server.connected = False
    held.look()


def test_a_look_without_redis_fails_and_forgets_nothing(held: HeldRequests, fleet: Fleet) -> None:
    (one,) = held.take([request("r1")])
    abandon(fleet.redis, ["r1"])
    held.look()
    fleet.server.connected = False
    with pytest.raises(redis.RedisError):
        held.look()
    assert not held.wants(one)


def test_whether_a_text_is_wanted_is_known_without_asking_redis(
    held: HeldRequests, fleet: Fleet, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The device thread asks, and would stand still while a Redis that hangs does not answer."""
    monkeypatch.setattr("semel.redis_client.time", clock)
    (one,) = held.take([request("r1", left_s=3600.0)])
    asked: list[None] = []

    def hang() -> None:
        asked.append(None)
        raise redis.TimeoutError

    monkeypatch.setattr(fleet.redis, "time", hang)
    clock.now += 60.0
    assert held.wants(one)
    assert asked == []
