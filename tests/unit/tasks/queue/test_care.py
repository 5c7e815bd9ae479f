"""The care for requests without an answer: those that were lost, whose worker died, or that ran out of time."""

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from semel.errors import DeviceLostError, TimedOutError, UnavailableError
from semel.tasks.queue import care as care_module
from semel.tasks.queue import outbox as outbox_module
from semel.tasks.queue import pending as pending_module
from semel.tasks.queue.care import RequestCare
from semel.tasks.queue.doorbell import abandoned, ring, states, take
from semel.tasks.queue.message import Answer, Request, RequestMessage
from semel.tasks.queue.outbox import Outbox
from semel.tasks.queue.pending import MESSAGES_PER_WORKER, Pending
from semel.tasks.queue.router import Router
from tests.support.fleet import SPACE, Clock, Fleet, card

SOON_S = 5.0
"""More than sending ever takes; a test that waits this long has failed."""

QUIET_S = 0.015
"""The courier has nothing to do if it sends nothing for this long."""

QUEUE = "interactive.cpu"

WORKER = "cpu@host"


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + SOON_S
    while not condition():
        assert time.monotonic() < deadline, "not true in time"
        time.sleep(0.0005)


class Process:
    """A process that sends requests and looks after them, on a clock that the test moves."""

    def __init__(self, fleet: Fleet, clock: Clock) -> None:
        self.fleet = fleet
        self.clock = clock
        router = Router(fleet.roster, fleet.catalog)
        self.outbox = Outbox(fleet.outbox, fleet.redis, router, inline_bytes=1000)
        self.care = RequestCare(self.outbox, fleet.redis, fleet.roster, router, timeout_s=60.0)

    def submit(self, *texts: str, **options: Any) -> Pending:
        return self.outbox.submit(SPACE, texts or ("text",), **{"device": "cpu", "timeout_s": 60.0, **options})

    def sent(self, *texts: str) -> Pending:
        """Submit a request, and wait until it travels."""
        before = len(self.fleet.outbox.sent)
        pending = self.submit(*texts)
        until(lambda: len(self.fleet.outbox.sent) > before)
        return pending

    def together(self, *texts: str) -> list[Pending]:
        """Requests that travel in one message."""
        under_way = [self.sent("fills") for _ in range(MESSAGES_PER_WORKER)]
        requests = [self.submit(text) for text in texts]
        before = len(self.fleet.outbox.sent)
        self.outbox.drop(under_way)
        until(lambda: len(self.fleet.outbox.sent) > before)
        assert len({id(pending.message) for pending in requests}) == 1
        return requests

    def look_after(self, seconds: float) -> None:
        """Let this time pass, then look once."""
        self.clock.now += seconds
        self.care.once()
        time.sleep(QUIET_S)

    def look_until(self, condition: Callable[[], object]) -> None:
        """Look every second, ten times at most, until this is true."""
        for _ in range(10):
            self.look_after(1.0)
            if condition():
                return
        raise AssertionError("not true within ten seconds")

    def copies(self, pending: Pending) -> list[Request]:
        """Every copy of a request that was sent, in the order of sending."""
        return [request for message in self.messages() for request in message if request.id == pending.request.id]

    def messages(self) -> list[list[Request]]:
        """The requests of every message."""
        sent = [RequestMessage.from_message(message) for _, (message,), _ in self.fleet.outbox.sent]
        return [list(message.requests) for message in sent]

    def take(self, *requests: Pending, worker_id: str = WORKER) -> None:
        """As a worker that begins with these."""
        assert len(take(self.fleet.redis, [each.request for each in requests], worker_id=worker_id)) == len(requests)


@pytest.fixture
def here(fleet: Fleet, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Iterator[Process]:
    """A process that waits up to 60 s for an answer; the worker `cpu@host` lives as long as the test lets it."""
    monkeypatch.setattr(care_module, "time", clock)
    monkeypatch.setattr(outbox_module, "time", clock)
    monkeypatch.setattr(pending_module, "SPACING_S", 0.0)
    fleet.catalog.publish([SPACE], device="cpu")
    fleet.join("cpu")
    made = Process(fleet, clock)
    yield made
    made.outbox.close()


# An answer


def test_the_stored_answer_makes_up_for_a_lost_notification(here: Process, fleet: Fleet) -> None:
    pending, answer = here.sent(), Answer(computed=[0])
    here.take(pending)
    ring(fleet.redis, reply_to="nobody", answers={pending.request.id: answer})
    here.look_after(1.0)
    assert pending.answer.result(0) == answer
    assert here.outbox.pending() == []


def test_a_request_that_was_just_sent_is_not_looked_for(here: Process, fleet: Fleet) -> None:
    pending = here.sent()
    ring(fleet.redis, reply_to="nobody", answers={pending.request.id: Answer()})
    here.look_after(0.5)
    assert not pending.answer.done(), "its notification is probably on the way"


def test_the_state_of_an_answered_request_is_deleted(here: Process, fleet: Fleet) -> None:
    pending = here.sent()
    ring(fleet.redis, reply_to="nobody", answers={pending.request.id: Answer()})
    here.outbox.answered(pending.request.id, Answer())
    here.look_after(1.0)
    assert fleet.redis.keys("semel:request:*") == []


# Too late


def test_a_request_without_an_answer_ends_in_time(here: Process, fleet: Fleet) -> None:
    pending = here.sent()
    here.take(pending)
    here.look_after(59.0)
    assert not pending.answer.done()
    here.look_after(1.0)
    with pytest.raises(TimedOutError, match="no worker answered within 60 s; try again, what was computed is cached"):
        pending.answer.result(0)
    until(lambda: abandoned(fleet.redis, [pending.request.id]))
    assert here.outbox.waiting() == {}


def test_a_request_that_was_never_sent_ends_in_time_too(here: Process) -> None:
    for _ in range(MESSAGES_PER_WORKER):
        here.take(here.sent())
    waits = here.submit()
    here.look_after(60.0)
    with pytest.raises(TimedOutError):
        waits.answer.result(0)
    assert here.copies(waits) == []


def test_without_redis_requests_still_end_in_time(here: Process, fleet: Fleet) -> None:
    pending = here.sent()
    fleet.server.connected = False
    with pytest.raises(redis.RedisError):
        here.look_after(60.0)
    assert isinstance(pending.answer.exception(0), TimedOutError)
    fleet.server.connected = True


# Lost messages


def test_a_message_that_an_emptied_redis_has_lost_is_sent_again_after_five_seconds(here: Process, fleet: Fleet) -> None:
    pending = here.sent()
    fleet.redis.flushall()
    fleet.join("cpu")
    here.look_after(4.9)
    assert len(here.copies(pending)) == 1
    here.look_after(0.1)
    first, second = here.copies(pending)
    assert first == second
    here.look_after(4.9)
    assert len(here.copies(pending)) == 2, "the new message has five seconds of its own"


def test_a_message_that_waits_in_its_queue_is_not_lost(here: Process, fleet: Fleet) -> None:
    pending = here.sent()
    fleet.redis.lpush(QUEUE, "the message")
    here.look_after(25.0)
    assert len(here.copies(pending)) == 1
    here.look_after(10.0)
    assert len(here.copies(pending)) == 2, "but nobody can be sure for ever, and a copy is dropped"


def test_a_message_is_lost_when_later_ones_were_taken_from_the_same_queue(
    here: Process, fleet: Fleet, clock: Clock
) -> None:
    pending = here.sent()
    clock.now += 1.0
    later = here.sent()
    fleet.redis.lpush(QUEUE, "others keep the queue busy")
    here.take(later)
    here.look_after(4.0)
    here.look_after(1.0)
    assert len(here.copies(pending)) == 2
    assert len(here.copies(later)) == 1


def test_a_request_that_a_live_worker_has_taken_is_left_alone(here: Process) -> None:
    pending = here.sent()
    here.take(pending)
    here.look_after(30.0)
    assert len(here.copies(pending)) == 1


def test_a_lost_request_that_finds_no_room_is_sent_again_once(here: Process, fleet: Fleet) -> None:
    """All messages under way are of suspects, which travel alone."""
    requests = here.together("one", "two", "three", "four", "five", "six")
    here.take(*requests, worker_id="dead@host")
    here.look_until(lambda: max(len(here.copies(pending)) for pending in requests) == 2)
    again = [pending for pending in requests if len(here.copies(pending)) == 2]
    here.take(*again)
    for _ in range(8):
        here.look_after(1.0)
    assert len(again) == MESSAGES_PER_WORKER
    assert [len(here.copies(pending)) for pending in again] == [2] * MESSAGES_PER_WORKER
    for pending in requests:
        here.outbox.answered(pending.request.id, Answer())
    before = len(fleet.outbox.sent)
    for _ in range(MESSAGES_PER_WORKER):
        here.sent("there is room again")
    assert len(fleet.outbox.sent) == before + MESSAGES_PER_WORKER


# Lost pools


def test_a_request_goes_to_another_pool_as_soon_as_its_own_is_gone(here: Process, fleet: Fleet) -> None:
    pending = here.sent()
    fleet.leave(fleet.roster.live()[0])
    fleet.join("mps")
    here.look_after(1.0)
    assert fleet.outbox.queues == [QUEUE, "interactive.mps"]
    assert [request.deaths for request in here.copies(pending)] == [0, 0]


def test_a_request_waits_ten_seconds_for_a_worker_that_restarts(here: Process, fleet: Fleet) -> None:
    pending = here.sent()
    fleet.leave(fleet.roster.live()[0])
    for _ in range(9):
        here.look_after(1.0)
    assert not pending.answer.done()
    fleet.join("cpu", id="restarted")
    here.look_after(1.0)
    assert len(here.copies(pending)) == 2


def test_a_request_fails_with_the_reason_when_no_worker_comes_back(here: Process, fleet: Fleet) -> None:
    pending = here.sent()
    fleet.leave(fleet.roster.live()[0])
    here.look_after(1.0)
    here.look_after(9.5)
    here.look_after(1.0)
    with pytest.raises(UnavailableError, match="no live worker serves 'm'; start one: semel worker --device cpu"):
        pending.answer.result(SOON_S)


def test_a_request_that_has_waited_long_has_the_same_patience_with_a_worker_that_restarts(
    here: Process, fleet: Fleet
) -> None:
    pending = here.sent()
    fleet.redis.lpush(QUEUE, "the message")
    here.look_after(30.0)
    fleet.leave(fleet.roster.live()[0])
    here.look_after(1.0)
    assert not pending.answer.done(), "the worker is gone for a second at most"
    fleet.join("cpu")
    here.look_after(1.0)
    assert not pending.answer.done()


# Dead workers


def test_the_request_of_a_dead_worker_is_sent_again(here: Process, fleet: Fleet) -> None:
    pending = here.sent()
    here.take(pending, worker_id="dead@host")
    here.look_until(lambda: len(here.copies(pending)) == 2)
    assert [request.deaths for request in here.copies(pending)] == [0, 1]
    assert states(fleet.redis, [pending.request.id])[0].worker is None, "another worker may take it"


def test_the_requests_of_a_dead_worker_travel_alone(here: Process) -> None:
    requests = here.together("one", "two", "three")
    here.take(*requests, worker_id="dead@host")
    here.look_until(lambda: len(here.messages()[-1]) == 1 and here.messages()[-1][0].deaths)
    suspects = [message for message in here.messages() if message[0].deaths]
    assert sorted(request.id for (request,) in suspects) == sorted(pending.request.id for pending in requests)


def test_a_request_that_may_have_killed_two_workers_meets_no_third(here: Process, fleet: Fleet) -> None:
    pending = here.sent("deadly")
    here.take(pending, worker_id="first@host")
    here.look_until(lambda: len(here.copies(pending)) == 2)
    here.take(pending, worker_id="second@host")
    here.look_until(pending.answer.done)
    with pytest.raises(DeviceLostError, match="2 workers died while they worked on this request"):
        pending.answer.result(0)
    here.look_after(10.0)
    assert len(here.copies(pending)) == 2
    until(lambda: abandoned(fleet.redis, [pending.request.id]))
    assert here.outbox.waiting() == {}


def test_the_other_requests_of_a_deadly_message_are_answered(here: Process) -> None:
    deadly, good = here.together("deadly", "good")
    here.take(deadly, good, worker_id="first@host")
    here.look_until(lambda: len(here.copies(deadly)) == len(here.copies(good)) == 2)
    here.take(deadly, worker_id="second@host")
    here.take(good)
    here.look_until(deadly.answer.done)
    assert isinstance(deadly.answer.exception(0), DeviceLostError)
    assert not good.answer.done()
    here.outbox.answered(good.request.id, Answer(computed=[0]))
    assert good.answer.result(0) == Answer(computed=[0])


def test_an_answer_that_a_dead_worker_left_behind_counts(here: Process, fleet: Fleet) -> None:
    pending = here.sent()
    here.take(pending, worker_id="dead@host")
    ring(fleet.redis, reply_to="nobody", answers={pending.request.id: Answer(computed=[0])})
    here.look_after(1.0)
    assert pending.answer.result(0) == Answer(computed=[0])


def test_a_worker_that_starts_while_the_care_looks_is_not_dead(
    here: Process, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    pending, read, new = here.sent(), fleet.roster.live, card("cpu", SPACE, id="new@host")

    def read_then_start() -> Any:
        live = read()
        if new.id not in {each.id for each in live}:
            fleet.roster.beat(new)
            here.take(pending, worker_id=new.id)
        return live

    monkeypatch.setattr(fleet.roster, "live", read_then_start)
    here.look_after(1.0)
    assert pending.request.deaths == 0


def test_a_worker_that_an_emptied_redis_has_forgotten_is_not_dead(here: Process, fleet: Fleet) -> None:
    """Its next heartbeat, at most two seconds later, puts it on the roster again."""
    fleet.redis.flushall()
    pending = here.sent()
    here.take(pending)
    here.look_after(1.0)
    fleet.join("cpu")
    here.look_after(1.0)
    assert pending.request.deaths == 0
    assert len(here.copies(pending)) == 1


# What waits in other processes


@pytest.fixture
def there(here: Process, fleet: Fleet, clock: Clock) -> Iterator[Process]:
    """Another process on the same Redis."""
    made = Process(fleet, clock)
    yield made
    made.outbox.close()


@pytest.fixture
def redis_clock(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Moves the clock of Redis, as far as the care reads it."""
    monkeypatch.setattr("semel.redis_client.RedisClock.now", lambda _self: clock.now)
    return clock


def test_the_texts_that_wait_in_other_processes_count(redis_clock: Clock, here: Process, there: Process) -> None:
    here.sent("a", "b")
    elsewhere = there.sent("c", "d", "e")
    assert here.care.texts("cpu") == 2
    there.care.once()
    here.care.once()
    assert here.care.texts("cpu") == 5
    assert here.care.texts("mps") == 0
    there.care.once()
    assert there.care.texts("cpu") == 5
    there.outbox.answered(elsewhere.request.id, Answer())
    there.care.once()
    here.care.once()
    assert here.care.texts("cpu") == 2


def test_devices_are_named_wherever_their_texts_wait(redis_clock: Clock, here: Process, there: Process) -> None:
    assert here.care.devices() == set()
    here.sent()
    there.submit(device="mps")
    there.care.once()
    here.care.once()
    assert here.care.devices() == {"cpu", "mps"}


def test_a_process_that_ends_is_forgotten_after_five_seconds(
    redis_clock: Clock, here: Process, there: Process, fleet: Fleet
) -> None:
    there.sent("a", "b")
    there.care.once()
    redis_clock.now += 5.0
    here.care.once()
    assert here.care.texts("cpu") == 2
    redis_clock.now += 0.1
    here.care.once()
    assert here.care.texts("cpu") == 0
    assert list(fleet.redis.hkeys("semel:waiting")) == [here.outbox.name.encode()]


@pytest.mark.parametrize("garbage", [b"{", b"3", b'["now", {}]', json.dumps([0, None]).encode()])
def test_what_another_version_writes_does_not_stop_the_care(here: Process, fleet: Fleet, garbage: bytes) -> None:
    pending = here.sent()
    ring(fleet.redis, reply_to="nobody", answers={pending.request.id: Answer()})
    fleet.redis.hset("semel:waiting", "another", garbage)
    here.look_after(1.0)
    assert pending.answer.done()
