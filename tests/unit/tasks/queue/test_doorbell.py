"""The state of requests in Redis, and the notification of a waiting process, which may be lost."""

import json
import threading
import time
from collections.abc import Iterator

import fakeredis
import pytest
import redis

from semel.tasks.queue import doorbell as doorbell_module
from semel.tasks.queue.doorbell import KEPT_S, Doorbell, State, abandon, abandoned, release, ring, states, take
from semel.tasks.queue.message import Answer, Row
from semel.values.text import ItemError
from tests.support.fleet import Clock, requests_of

SOON_S = 5.0
"""More than a notification ever takes; a test that waits this long has failed."""


class Waiter:
    """The process behind a doorbell.

    Attributes:
        answers: (request id, answer) of every notification.
    """

    def __init__(self) -> None:
        self.answers: list[tuple[str, Answer]] = []
        self._arrived = threading.Semaphore(0)

    def on_answer(self, request_id: str, answer: Answer) -> None:
        self.answers.append((request_id, answer))
        self._arrived.release()

    def wait(self, count: int = 1) -> list[tuple[str, Answer]]:
        for _ in range(count):
            assert self._arrived.acquire(timeout=SOON_S), f"no further answer than {self.answers}"
        return self.answers


@pytest.fixture
def client() -> "redis.Redis":
    return fakeredis.FakeRedis(server=fakeredis.FakeServer())


@pytest.fixture
def waiter() -> Waiter:
    return Waiter()


@pytest.fixture
def doorbell(client: "redis.Redis", waiter: Waiter) -> Iterator[Doorbell]:
    """A doorbell that listens."""
    made = Doorbell(client, waiter.on_answer)
    wait_until_it_listens(client, made)
    yield made
    made.close()


def wait_until_it_listens(client: "redis.Redis", doorbell: Doorbell) -> None:
    deadline = time.monotonic() + SOON_S
    while client.pubsub_numsub(f"semel:bell:{doorbell.name}")[0][1] != 1:
        assert time.monotonic() < deadline
        time.sleep(0.001)


# The state of requests


def test_a_request_that_nobody_has_taken_has_no_state(client: "redis.Redis") -> None:
    assert states(client, ["r1"]) == [State()]
    assert states(client, []) == []


def test_a_request_is_taken_by_one_worker_only(client: "redis.Redis") -> None:
    assert take(client, requests_of("r1", "r2"), worker_id="cpu@host") == {"r1", "r2"}
    assert take(client, requests_of("r2", "r3"), worker_id="mps@host") == {"r3"}
    assert take(client, requests_of("r1"), worker_id="cpu@host") == set(), "nor twice by the same one"
    assert [state.worker for state in states(client, ["r1", "r2", "r3"])] == ["cpu@host", "cpu@host", "mps@host"]


def test_an_answered_request_is_not_taken_again(client: "redis.Redis") -> None:
    ring(client, reply_to="bell", answers={"r1": Answer()})
    assert take(client, requests_of("r1"), worker_id="cpu@host") == set()


def test_a_released_request_may_be_taken_by_another_worker(client: "redis.Redis") -> None:
    take(client, requests_of("r1"), worker_id="cpu@host")
    release(client, ["r1"])
    release(client, [])
    assert take(client, requests_of("r1"), worker_id="mps@host") == {"r1"}


def test_a_request_that_nobody_waits_for_is_never_taken(client: "redis.Redis") -> None:
    abandon(client, ["r1"])
    assert take(client, requests_of("r1", "r2"), worker_id="cpu@host") == {"r2"}
    assert states(client, ["r1"]) == [State()], "it belongs to no worker"


def test_the_worker_of_a_request_can_see_that_nobody_waits_any_more(client: "redis.Redis") -> None:
    take(client, requests_of("r1", "r2"), worker_id="cpu@host")
    abandon(client, ["r2"])
    assert abandoned(client, ["r1", "r2", "r3"]) == {"r2"}
    assert abandoned(client, []) == set()


def test_the_stored_answer_makes_up_for_a_lost_notification(client: "redis.Redis") -> None:
    answer = Answer(computed=[0], errors={1: ItemError("invalid_vector", "NaN")}, seconds=0.5)
    take(client, requests_of("r1"), worker_id="cpu@host")
    ring(client, reply_to="nobody listens", answers={"r1": answer})
    assert states(client, ["r1"]) == [State(answer=answer)]


def test_no_state_stays_for_ever(client: "redis.Redis") -> None:
    take(client, requests_of("taken"), worker_id="cpu@host")
    abandon(client, ["gone"])
    ring(client, reply_to="bell", answers={"answered": Answer()})
    assert all(0 < client.ttl(f"semel:request:{name}") <= KEPT_S for name in ("taken", "gone", "answered"))


# The notification


def test_a_notification_has_the_answers_of_several_requests(
    doorbell: Doorbell, waiter: Waiter, client: "redis.Redis"
) -> None:
    answers = {f"r{i}": Answer(computed=[i]) for i in range(3)}
    ring(client, reply_to=doorbell.name, answers=answers)
    assert dict(waiter.wait(3)) == answers


def test_a_doorbell_hears_only_what_is_for_its_own_process(
    doorbell: Doorbell, waiter: Waiter, client: "redis.Redis"
) -> None:
    ring(client, reply_to="another process", answers={"r1": Answer()})
    ring(client, reply_to=doorbell.name, answers={"r2": Answer()})
    assert waiter.wait() == [("r2", Answer())]


GARBAGE = {
    "no UTF-8": b"\xff\xfe",
    "no JSON": b"{",
    "no mapping": b"[1, 2]",
    "a number": b"3",
    "no answer": b'{"r0": null}',
    "an answer that is no text": b'{"r0": 3}',
    "an answer with too few fields": b'{"r0": "[1, 2]"}',
    "an answer with a field of the wrong type": json.dumps({"r0": "[[], [], [], null, [], 0]"}).encode(),
    "an error that is none": json.dumps({"r0": '[[], [], {"0": [1, 2, 3]}, null, [], 0]'}).encode(),
    "a position that is none": json.dumps({"r0": '[[], [], {"x": ["a", "b"]}, null, [], 0]'}).encode(),
    "a row that is none": json.dumps({"r0": '[[0], [], {}, null, [], 0, {"0": ["!", 1]}]'}).encode(),
    "rows that are none": json.dumps({"r0": "[[0], [], {}, null, [], 0, 3]"}).encode(),
    "far too deep": b"[" * 100_000,
}


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE)
def test_the_listener_survives_a_message_that_is_no_notification(
    doorbell: Doorbell, waiter: Waiter, client: "redis.Redis", garbage: bytes
) -> None:
    client.publish(f"semel:bell:{doorbell.name}", garbage)
    ring(client, reply_to=doorbell.name, answers={"r1": Answer()})
    assert waiter.wait() == [("r1", Answer())]


def test_the_rows_of_an_answer_are_sent_and_not_kept(doorbell: Doorbell, waiter: Waiter, client: "redis.Redis") -> None:
    answer = Answer(computed=[0], rows={0: Row(b"\0\0\x80?", 3, False)})
    ring(client, reply_to=doorbell.name, answers={"r1": answer})
    assert waiter.wait() == [("r1", answer)]
    assert states(client, ["r1"]) == [State(answer=Answer(computed=[0]))]


def test_closing_does_not_wait_for_the_next_notification(client: "redis.Redis", waiter: Waiter) -> None:
    doorbell = Doorbell(client, waiter.on_answer)
    wait_until_it_listens(client, doorbell)
    started = time.monotonic()
    doorbell.close()
    assert time.monotonic() - started < 0.5, "the listener waits for a second at a time"


class Unreliable:
    """A Redis whose first subscriptions fail."""

    def __init__(self, client: "redis.Redis", *, failures: int) -> None:
        self._client = client
        self.failures = failures

    def pubsub(self, **options: object) -> object:
        if self.failures:
            self.failures -= 1
            raise redis.ConnectionError("connection refused")
        return self._client.pubsub(**options)  # type: ignore[no-untyped-call]

    def publish(self, channel: str, data: bytes) -> object:
        return self._client.publish(channel, data)


def test_a_listener_that_loses_redis_subscribes_again(
    client: "redis.Redis", waiter: Waiter, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doorbell_module, "time", clock)
    doorbell = Doorbell(Unreliable(client, failures=3), waiter.on_answer)  # type: ignore[arg-type]
    wait_until_it_listens(client, doorbell)
    assert clock.slept == [0.5] * 3
    doorbell.close()
