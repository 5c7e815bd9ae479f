"""The way back: a notification that may be lost, and an answer that is stored for a while."""

import threading
import time
import uuid
from collections.abc import Iterator

import fakeredis
import pytest
import redis

from semel.tasks.queue import doorbell as doorbell_module
from semel.tasks.queue.doorbell import ANSWER_TTL_S, Doorbell, ring
from semel.tasks.queue.message import Answer
from semel.values.text import ItemError
from tests.support.fleet import Clock
from tests.support.processes import wait_until

SOON_S = 5.0
"""More than a notification ever takes; a test that waits this long has failed."""


@pytest.fixture
def server() -> "fakeredis.FakeServer":
    return fakeredis.FakeServer()


@pytest.fixture
def client(server: "fakeredis.FakeServer") -> "redis.Redis":
    return fakeredis.FakeRedis(server=server)


@pytest.fixture
def doorbell(client: "redis.Redis") -> Iterator[Doorbell]:
    """A doorbell that listens."""
    made = Doorbell(client)
    wait_until(lambda: listens(client, made))
    yield made
    made.close()


def listens(client: "redis.Redis", doorbell: Doorbell) -> bool:
    return client.pubsub_numsub(f"semel:bell:{doorbell.name}")[0][1] == 1


def expected(doorbell: Doorbell) -> str:
    request_id = uuid.uuid4().hex
    doorbell.expect(request_id)
    return request_id


def lose_notifications(client: "redis.Redis", monkeypatch: pytest.MonkeyPatch) -> None:
    """As when the listener is reconnecting while a worker rings."""
    monkeypatch.setattr(doorbell_module, "_BELL", "no one listens here:")


def test_a_waiter_gets_its_answer_from_the_notification(doorbell: Doorbell, client: "redis.Redis") -> None:
    request_id, answer = expected(doorbell), Answer(computed=[0, 1], seconds=0.5)
    ring(client, request_id=request_id, reply_to=doorbell.name, answer=answer)
    client.delete(f"semel:answer:{request_id}")
    assert doorbell.wait(request_id, timeout_s=SOON_S) == answer


def test_an_answer_wakes_its_waiter_at_once(doorbell: Doorbell, client: "redis.Redis") -> None:
    request_id = expected(doorbell)
    later = threading.Timer(
        0.05, ring, args=(client,), kwargs={"request_id": request_id, "reply_to": doorbell.name, "answer": Answer()}
    )
    started = time.monotonic()
    later.start()
    assert doorbell.wait(request_id, timeout_s=SOON_S) == Answer()
    assert time.monotonic() - started < SOON_S / 2
    later.join()


def test_a_lost_notification_is_made_up_for_by_the_stored_answer(
    doorbell: Doorbell, client: "redis.Redis", monkeypatch: pytest.MonkeyPatch
) -> None:
    request_id, answer = expected(doorbell), Answer(errors={0: ItemError("invalid_vector", "NaN")})
    lose_notifications(client, monkeypatch)
    ring(client, request_id=request_id, reply_to=doorbell.name, answer=answer)
    assert doorbell.wait(request_id, timeout_s=0.01) == answer


def test_without_an_answer_the_waiter_may_wait_again(doorbell: Doorbell, client: "redis.Redis") -> None:
    request_id = expected(doorbell)
    assert doorbell.wait(request_id, timeout_s=0.01) is None
    ring(client, request_id=request_id, reply_to=doorbell.name, answer=Answer())
    assert doorbell.wait(request_id, timeout_s=SOON_S) == Answer()


def test_each_request_gets_its_own_answer(doorbell: Doorbell, client: "redis.Redis") -> None:
    requests = [expected(doorbell) for _ in range(5)]
    for i, request_id in reversed(list(enumerate(requests))):
        ring(client, request_id=request_id, reply_to=doorbell.name, answer=Answer(computed=[i]))
    answers = [doorbell.wait(request_id, timeout_s=SOON_S) for request_id in requests]
    assert answers == [Answer(computed=[i]) for i in range(5)]


def test_an_answer_to_a_request_without_a_waiter_is_ignored(doorbell: Doorbell, client: "redis.Redis") -> None:
    forgotten, waiting = expected(doorbell), expected(doorbell)
    doorbell.forget(forgotten)
    doorbell.forget("never expected")
    for request_id in (forgotten, uuid.uuid4().hex, waiting):
        ring(client, request_id=request_id, reply_to=doorbell.name, answer=Answer())
    assert doorbell.wait(waiting, timeout_s=SOON_S) == Answer(), "the listener goes on"


def test_a_stored_answer_does_not_stay_for_ever(client: "redis.Redis") -> None:
    ring(client, request_id="r" * 32, reply_to="gone", answer=Answer())
    assert 0 < client.ttl(f"semel:answer:{'r' * 32}") <= ANSWER_TTL_S


def test_without_redis_a_waiter_gets_an_error_instead_of_waiting_for_ever(
    doorbell: Doorbell, server: "fakeredis.FakeServer"
) -> None:
    request_id = expected(doorbell)
    server.connected = False
    with pytest.raises(redis.RedisError):
        doorbell.wait(request_id, timeout_s=0.01)
    server.connected = True


class Unreliable:
    """A Redis whose first subscriptions fail."""

    def __init__(self, client: "redis.Redis", *, failures: int) -> None:
        self._client = client
        self.failures = failures

    def pubsub(self, **options: object) -> object:
        if self.failures:
            self.failures -= 1
            raise redis.ConnectionError("connection refused")
        return self._client.pubsub(**options)

    def publish(self, channel: str, data: bytes) -> object:
        return self._client.publish(channel, data)


def test_closing_does_not_wait_for_the_next_notification(client: "redis.Redis") -> None:
    doorbell = Doorbell(client)
    wait_until(lambda: listens(client, doorbell))
    started = time.monotonic()
    doorbell.close()
    assert time.monotonic() - started < 0.5, "the listener waits for a second at a time"


def test_a_listener_that_loses_redis_subscribes_again(
    client: "redis.Redis", clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doorbell_module, "time", clock)
    unreliable = Unreliable(client, failures=3)
    doorbell = Doorbell(unreliable)  # type: ignore[arg-type]
    wait_until(lambda: listens(client, doorbell))
    assert clock.slept == [0.5] * 3
    doorbell.close()
