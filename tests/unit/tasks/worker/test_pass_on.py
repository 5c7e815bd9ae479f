"""Messages that a worker cannot serve go on to another one."""

import time
from dataclasses import replace

import pytest
from kombu.exceptions import OperationalError

from semel.tasks.fleet.failover import Failover
from semel.tasks.jobs.moves import JobMoves
from semel.tasks.queue.doorbell import State, abandon, abandoned, states, take
from semel.tasks.queue.message import Request, RequestMessage
from semel.tasks.queue.names import EMBED_TEXTS, READ_TEXTS
from semel.tasks.worker import pass_on as pass_on_module
from semel.tasks.worker.pass_on import PassOn
from tests.support.fleet import OTHER, SPACE, Clock, Fleet, requests_of

HERE = "cuda:0@host"

REQUEST = Request("r1", ["a secret"], sent_at=1.0, expires_at=time.time() + 60.0)

MESSAGE = RequestMessage("bell", "m", "", SPACE.fingerprint.hex(), [REQUEST, replace(REQUEST, id="r2")])


@pytest.fixture
def pass_on(fleet: Fleet, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> PassOn:
    """That of the worker `cuda:0@host`, which has taken the requests."""
    monkeypatch.setattr(pass_on_module, "time", clock)
    fleet.join("cuda:0")
    take(fleet.redis, requests_of("r1", "r2"), worker_id=HERE)
    failover = Failover(fleet.jobs, JobMoves(fleet.db), fleet.roster, use_case="auto", fail_after_s=60)
    return PassOn(fleet.outbox, fleet.redis, failover, HERE, "cuda:0", "auto")


def sent(fleet: Fleet) -> list[RequestMessage]:
    return [RequestMessage.from_message(message) for _, (message,), _ in fleet.outbox.sent]


def test_a_message_goes_to_the_best_pool_that_serves_its_space(pass_on: PassOn, fleet: Fleet, clock: Clock) -> None:
    fleet.join("cpu")
    fleet.join("mps")
    fleet.join("mlx", OTHER)
    assert pass_on(READ_TEXTS, replace(MESSAGE, passed_on=2))
    ((task, _, queue),) = fleet.outbox.sent
    assert (task, queue) == (READ_TEXTS, "interactive.mps")
    assert sent(fleet) == [replace(MESSAGE, passed_on=3)]
    assert "secret" not in fleet.outbox.shown[0]
    assert clock.slept == [0.05]


def test_the_other_worker_may_take_the_requests(pass_on: PassOn, fleet: Fleet) -> None:
    fleet.join("cpu")
    states_when_sent: list[State] = []
    fleet.outbox.on_send = lambda _task, _args: states_when_sent.extend(states(fleet.redis, ["r1", "r2"]))
    assert pass_on(EMBED_TEXTS, MESSAGE)
    assert states_when_sent == [State(), State()], "before the message arrives there"
    assert take(fleet.redis, requests_of("r1", "r2"), worker_id="cpu@host") == {"r1", "r2"}


def test_a_request_that_nobody_waits_for_any_more_is_not_made_available_again(pass_on: PassOn, fleet: Fleet) -> None:
    fleet.join("cpu")
    abandon(fleet.redis, ["r1"])
    pass_on(EMBED_TEXTS, MESSAGE)
    assert abandoned(fleet.redis, ["r1", "r2"]) == {"r1"}
    assert take(fleet.redis, requests_of("r1", "r2"), worker_id="cpu@host") == {"r2"}


def test_a_worker_that_is_alone_passes_nothing_on(pass_on: PassOn, fleet: Fleet) -> None:
    fleet.join("cpu", OTHER)
    assert not pass_on(EMBED_TEXTS, MESSAGE)
    assert fleet.outbox.sent == []
    assert states(fleet.redis, ["r1"]) == [State(worker=HERE)], "it answers them itself"


@pytest.mark.parametrize(("passed_on", "queue"), [(3, "interactive.cuda"), (4, "interactive.cpu")])
def test_after_some_passes_a_message_avoids_its_own_queue(
    pass_on: PassOn, fleet: Fleet, passed_on: int, queue: str
) -> None:
    fleet.join("cuda:1")
    fleet.join("cpu")
    assert pass_on(EMBED_TEXTS, replace(MESSAGE, passed_on=passed_on))
    assert fleet.outbox.queues == [queue]


def test_a_message_returns_to_its_own_queue_when_only_that_one_has_a_worker(pass_on: PassOn, fleet: Fleet) -> None:
    fleet.join("cuda:1")
    assert pass_on(EMBED_TEXTS, replace(MESSAGE, passed_on=10))
    assert fleet.outbox.queues == ["interactive.cuda"]


def test_a_message_is_not_passed_around_for_ever(pass_on: PassOn, fleet: Fleet) -> None:
    fleet.join("cpu")
    assert pass_on(EMBED_TEXTS, replace(MESSAGE, passed_on=19))
    assert not pass_on(EMBED_TEXTS, replace(MESSAGE, passed_on=20))


def test_without_redis_a_message_is_answered_here(pass_on: PassOn, fleet: Fleet) -> None:
    fleet.join("cpu")
    fleet.outbox.error = OperationalError("connection refused")
    assert not pass_on(EMBED_TEXTS, MESSAGE)
    fleet.outbox.error = None
    fleet.server.connected = False
    assert not pass_on(EMBED_TEXTS, MESSAGE)


# After a death


def test_after_a_death_each_request_goes_on_alone(pass_on: PassOn, fleet: Fleet) -> None:
    fleet.join("cpu")
    assert pass_on.after_death(EMBED_TEXTS, MESSAGE) == []
    assert [[(request.id, request.deaths) for request in message.requests] for message in sent(fleet)] == [
        [("r1", 1)],
        [("r2", 1)],
    ]


def test_after_a_second_death_a_request_goes_no_further(pass_on: PassOn, fleet: Fleet) -> None:
    fleet.join("cpu")
    suspect = replace(REQUEST, deaths=1)
    assert pass_on.after_death(EMBED_TEXTS, replace(MESSAGE, requests=[suspect])) == [suspect]
    assert fleet.outbox.sent == []


def test_after_a_death_that_nobody_can_take_over_the_requests_come_back(pass_on: PassOn) -> None:
    assert pass_on.after_death(EMBED_TEXTS, MESSAGE) == list(MESSAGE.requests)


def test_many_requests_go_on_within_a_second_after_a_death(pass_on: PassOn, fleet: Fleet, clock: Clock) -> None:
    fleet.join("cpu")
    many = [replace(REQUEST, id=f"r{i}") for i in range(128)]
    assert pass_on.after_death(EMBED_TEXTS, replace(MESSAGE, requests=many)) == []
    assert len(fleet.outbox.sent) == 128
    assert sum(clock.slept) < 1.0
