"""Who is alive: heartbeats that run out, failures that are remembered, a Redis that does not answer."""

from dataclasses import replace

import pytest
import redis

from semel.errors import UnavailableError
from semel.tasks.fleet.roster import BEAT_S, LIVE_S, Roster
from tests.support.fleet import SPACE, Clock, Fleet, card


def ids(fleet: Fleet) -> list[str]:
    return [worker.id for worker in fleet.roster.live()]


def expire(fleet: Fleet, worker_id: str) -> None:
    """What Redis does when a worker has sent no heartbeat for `LIVE_S`."""
    assert fleet.redis.delete(f"semel:worker:{worker_id}") == 1


def test_a_heartbeat_puts_a_worker_on_the_roster_with_its_card(fleet: Fleet) -> None:
    worker = card("cuda:0", SPACE, texts_per_s=12.5)
    fleet.roster.beat(worker)
    assert fleet.roster.live() == [worker]


def test_the_next_heartbeat_replaces_the_card(fleet: Fleet) -> None:
    worker = card("cpu", SPACE, state="loading")
    fleet.roster.beat(worker)
    fleet.roster.beat(replace(worker, state="ready"))
    assert [card.state for card in fleet.roster.live()] == ["ready"]


def test_workers_are_listed_in_the_order_of_their_ids(fleet: Fleet) -> None:
    for device in ("mps", "cpu", "cuda:0"):
        fleet.join(device)
    assert ids(fleet) == ["cpu@host", "cuda:0@host", "mps@host"]


def test_a_worker_without_heartbeats_is_gone_and_its_id_is_forgotten(fleet: Fleet) -> None:
    fleet.join("cpu")
    fleet.join("mps")
    expire(fleet, "cpu@host")
    assert ids(fleet) == ["mps@host"]
    assert fleet.redis.smembers("semel:workers") == {b"mps@host"}


def test_a_worker_may_miss_three_heartbeats(fleet: Fleet) -> None:
    fleet.join("cpu")
    left_ms = fleet.redis.pttl("semel:worker:cpu@host")
    assert 3 * BEAT_S < left_ms / 1000 <= LIVE_S


def test_an_emptied_redis_is_refilled_by_the_next_heartbeat(fleet: Fleet) -> None:
    worker = fleet.join("cpu")
    fleet.redis.flushall()
    assert ids(fleet) == []
    fleet.roster.beat(worker)
    assert ids(fleet) == ["cpu@host"]


def test_a_worker_that_leaves_is_gone_at_once(fleet: Fleet) -> None:
    fleet.join("cpu")
    fleet.roster.leave("cpu@host")
    assert ids(fleet) == []


def test_a_worker_without_a_connection_and_without_a_beat_is_certainly_dead_at_the_second_look(fleet: Fleet) -> None:
    fleet.roster.beat(card("cpu", SPACE, beats=7))
    assert fleet.roster.vanished(["cpu@host", "dead"]) == set()
    assert fleet.roster.vanished(["cpu@host", "dead"]) == {"cpu@host", "dead"}
    assert ids(fleet) == []


def test_a_worker_that_is_certainly_dead_leaves_the_roster_whether_or_not_it_has_leases(fleet: Fleet) -> None:
    fleet.roster.beat(card("cpu", SPACE, beats=7))
    assert [fleet.roster.vanished([]) for _ in range(2)] == [set(), {"cpu@host"}]
    assert ids(fleet) == []


def test_a_worker_with_a_beat_between_two_looks_lives(fleet: Fleet) -> None:
    for beats in (1, 2, 3):
        fleet.roster.beat(card("cpu", SPACE, beats=beats))
        assert fleet.roster.vanished(["cpu@host"]) == set()
    assert ids(fleet) == ["cpu@host"]


def test_a_worker_that_does_not_count_its_beats_is_dead_when_it_has_left_the_roster(fleet: Fleet) -> None:
    fleet.join("cpu")
    assert [fleet.roster.vanished(["cpu@host"]) for _ in range(3)] == [set()] * 3
    expire(fleet, "cpu@host")
    assert [fleet.roster.vanished(["cpu@host"]) for _ in range(2)] == [set(), {"cpu@host"}]


def test_a_worker_that_is_only_held_up_keeps_its_connection(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet.redis, "client_list", lambda: [{"name": "stopped"}, {"name": ""}])
    looks = [fleet.roster.vanished(["stopped", "dead"]) for _ in range(2)]
    assert looks == [set(), {"dead"}]


def test_a_list_without_the_own_connection_convicts_nobody(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet.redis, "client_list", lambda: [{"name": "a connection of a proxy"}])
    monkeypatch.setitem(fleet.redis.connection_pool.connection_kwargs, "client_name", "cpu@host")
    assert [fleet.roster.vanished(["dead"]) for _ in range(3)] == [set()] * 3


def test_where_redis_does_not_list_its_connections_nobody_is_certainly_dead(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses() -> None:
        raise redis.ResponseError("NOPERM")

    monkeypatch.setattr(fleet.redis, "client_list", refuses)
    assert [fleet.roster.vanished(["dead"]) for _ in range(3)] == [set()] * 3


def test_the_time_left_shrinks_to_nothing_and_is_zero_for_an_unknown_worker(fleet: Fleet) -> None:
    fleet.join("cpu")
    fleet.redis.pexpire("semel:worker:cpu@host", 1500)
    left = fleet.roster.time_left(["cpu@host", "unknown"])
    assert 1.0 < left[0] <= 1.5
    assert left[1] == 0.0
    assert fleet.roster.time_left([]) == []


def test_a_failed_worker_is_off_the_roster_and_its_reason_stays(fleet: Fleet) -> None:
    worker = fleet.join("cpu")
    fleet.roster.report_failed(replace(worker, state="failed", why="wrong numbers"))
    assert ids(fleet) == []
    assert [(card.device, card.why) for card in fleet.roster.failed()] == [("cpu", "wrong numbers")]
    assert 0 < fleet.redis.ttl("semel:failed-workers") <= 3600


def test_a_device_of_a_host_has_one_failure_the_latest(fleet: Fleet) -> None:
    for worker_id, why in (("cpu@host-1", "first"), ("cpu@host-2", "second")):
        fleet.roster.report_failed(card("cpu", SPACE, id=worker_id, why=why))
    fleet.roster.report_failed(card("cpu", SPACE, host="other host", why="third"))
    assert sorted(card.why for card in fleet.roster.failed()) == ["second", "third"]


def test_a_device_that_works_again_has_no_failure(fleet: Fleet) -> None:
    fleet.roster.report_failed(card("cpu", SPACE))
    fleet.roster.report_failed(card("mps", SPACE))
    fleet.roster.forget_failed(card("cpu", SPACE, id="its successor"))
    assert [card.device for card in fleet.roster.failed()] == ["mps"]


def test_requests_share_a_reading_of_the_roster_for_a_second(
    fleet: Fleet, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("semel.kept.time", clock)
    roster = Roster(fleet.redis)
    assert roster.recently_live() == []
    fleet.roster.beat(card("cpu", SPACE))
    clock.now += 0.9
    assert roster.recently_live() == []
    clock.now += 0.2
    assert [worker.id for worker in roster.recently_live()] == ["cpu@host"]


def test_a_fresh_reading_serves_the_requests_as_well(
    fleet: Fleet, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("semel.kept.time", clock)
    roster = Roster(fleet.redis)
    roster.recently_live()
    fleet.roster.beat(card("cpu", SPACE))
    roster.live()
    assert [worker.id for worker in roster.recently_live()] == ["cpu@host"]


def test_a_reader_gets_an_error_when_redis_does_not_answer(fleet: Fleet) -> None:
    fleet.server.connected = False
    for read in (fleet.roster.live, fleet.roster.recently_live, fleet.roster.failed):
        with pytest.raises(UnavailableError, match="Redis"):
            read()
    with pytest.raises(UnavailableError, match="Redis"):
        fleet.roster.time_left(["cpu@host"])


def test_a_heartbeat_fails_when_redis_does_not_answer(fleet: Fleet) -> None:
    fleet.server.connected = False
    with pytest.raises(redis.RedisError):
        fleet.roster.beat(card("cpu", SPACE))
    fleet.server.connected = True
    assert ids(fleet) == []
