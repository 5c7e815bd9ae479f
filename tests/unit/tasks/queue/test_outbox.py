"""Requests on their way to the workers: what waits gathers into few messages, and each request ends exactly once."""

import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
import redis
from kombu.exceptions import OperationalError

from semel.errors import SemelError, TimedOutError, UnavailableError
from semel.tasks.queue import outbox as outbox_module
from semel.tasks.queue import pending as pending_module
from semel.tasks.queue.doorbell import abandoned, ring, take
from semel.tasks.queue.message import Answer, Request, RequestMessage
from semel.tasks.queue.names import EMBED_TEXTS, READ_TEXTS
from semel.tasks.queue.outbox import Outbox
from semel.tasks.queue.pending import MESSAGES_PER_WORKER, Pending
from semel.tasks.queue.router import Router
from semel.values.model import Space
from tests.support.fleet import OTHER, SPACE, Clock, Fleet

SOON_S = 5.0
"""More than sending ever takes; a test that waits this long has failed."""

QUIET_S = 0.015
"""The courier has nothing to do if it sends nothing for this long."""


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + SOON_S
    while not condition():
        assert time.monotonic() < deadline, "not true in time"
        time.sleep(0.0005)


class Desk:
    """An outbox, and what it has sent."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.outbox = Outbox(
            fleet.outbox,  # in the place of Celery
            fleet.redis,
            Router(fleet.roster, fleet.catalog),
            inline_bytes=100,
        )

    def submit(self, *texts: str, space: Space = SPACE, **options: Any) -> Pending:
        return self.outbox.submit(space, texts or ("text",), **{"device": "cpu", "timeout_s": 60.0, **options})

    def messages(self) -> list[list[str]]:
        """The ids of the requests of every message."""
        return [[request["id"] for request in message["requests"]] for _, (message,), _ in self.fleet.outbox.sent]

    def wait(self, count: int) -> list[RequestMessage]:
        """All messages, as soon as there are so many; fails if there are more."""
        until(lambda: len(self.fleet.outbox.sent) >= count)
        time.sleep(QUIET_S)
        sent = [RequestMessage.from_message(message) for _, (message,), _ in self.fleet.outbox.sent]
        assert len(sent) == count, f"{len(sent)} messages"
        return sent

    def sent(self, *texts: str, **options: Any) -> Pending:
        """Submit a request, and wait until it travels."""
        before = len(self.fleet.outbox.sent)
        pending = self.submit(*texts, **options)
        until(lambda: len(self.fleet.outbox.sent) > before)
        return pending

    def fill(self) -> list[Pending]:
        """As many messages of one request each as may be under way with one worker."""
        return [self.sent(f"under way {i}") for i in range(MESSAGES_PER_WORKER)]

    def answer(self, *requests: Pending) -> None:
        for pending in requests:
            self.outbox.answered(pending.request.id, Answer())

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Keep the courier busy with the message of another space while the block runs."""
        busy, go_on = threading.Event(), threading.Event()

        def hold(_task: str, _args: list[Any]) -> None:
            self.fleet.outbox.on_send = lambda _task, _args: None
            busy.set()
            go_on.wait(SOON_S)

        self.fleet.outbox.on_send = hold
        self.submit("holds the courier", space=OTHER)
        assert busy.wait(SOON_S)
        yield
        go_on.set()
        time.sleep(2 * QUIET_S)

    def copies(self, pending: Pending) -> list[Request]:
        """Every copy of a request that was sent."""
        sent = [RequestMessage.from_message(message) for _, (message,), _ in self.fleet.outbox.sent]
        return [request for message in sent for request in message.requests if request.id == pending.request.id]

    def room(self) -> int:
        """How many messages may be under way now that every request has ended."""
        before = len(self.fleet.outbox.sent)
        for i in range(2 * MESSAGES_PER_WORKER):
            self.submit(f"fills {i}")
            time.sleep(0.002)
        time.sleep(QUIET_S)
        return len(self.fleet.outbox.sent) - before


@pytest.fixture
def desk(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    """One worker on the CPU; a message holds 100 characters, and does not wait for more requests."""
    monkeypatch.setattr(pending_module, "SPACING_S", 0.0)
    fleet.catalog.publish([SPACE], device="cpu")
    fleet.join("cpu", SPACE, OTHER)
    made = Desk(fleet)
    yield made
    made.outbox.close()


def ids(requests: list[Pending]) -> list[str]:
    return [pending.request.id for pending in requests]


# One request


def test_a_request_travels_with_its_texts_to_the_pool_that_serves_its_space(desk: Desk, fleet: Fleet) -> None:
    before = time.time()
    pending = desk.submit("one", "two", timeout_s=60.0)
    (message,) = desk.wait(1)
    ((task, _, queue),) = fleet.outbox.sent
    assert (task, queue) == (EMBED_TEXTS, "interactive.cpu")
    assert (message.model, message.prompt_name, message.fingerprint) == ("m", "", SPACE.fingerprint.hex())
    assert message.reply_to == desk.outbox.name
    ((request,),) = [message.requests]
    assert (request.id, request.texts, request.deaths) == (pending.request.id, ["one", "two"], 0)
    assert before + 59.0 < request.expires_at < before + 65.0


def test_a_request_that_reads_texts_is_another_task(desk: Desk, fleet: Fleet) -> None:
    desk.submit("one", reading="count")
    (message,) = desk.wait(1)
    assert (fleet.outbox.sent[0][0], message.reading) == (READ_TEXTS, "count")


def test_flower_shows_no_text(desk: Desk, fleet: Fleet) -> None:
    desk.sent("a secret")
    assert "secret" not in fleet.outbox.shown[0]


def test_an_answer_that_rings_ends_the_wait(desk: Desk, fleet: Fleet) -> None:
    pending, answer = desk.sent("one"), Answer(computed=[0], seconds=0.5)
    until(lambda: fleet.redis.pubsub_numsub(f"semel:bell:{desk.outbox.name}")[0][1] == 1)
    ring(fleet.redis, reply_to=desk.outbox.name, answers={pending.request.id: answer})
    assert pending.answer.result(SOON_S) == answer


def test_an_answer_to_a_request_that_nobody_waits_for_is_ignored(desk: Desk) -> None:
    pending = desk.sent("one")
    desk.outbox.answered("unknown", Answer())
    desk.outbox.answered(pending.request.id, Answer(computed=[0]))
    desk.outbox.answered(pending.request.id, Answer(computed=[1]))
    assert pending.answer.result(0) == Answer(computed=[0]), "the first answer counts"
    assert desk.outbox.take_settled() == [pending.request.id]
    assert desk.outbox.take_settled() == []


# Many requests


def test_requests_that_wait_while_messages_are_under_way_share_the_next_one(desk: Desk) -> None:
    first, *_ = desk.fill()
    waiting = [desk.submit(f"waits {i}") for i in range(5)]
    desk.wait(MESSAGES_PER_WORKER)
    desk.answer(first)
    assert desk.wait(MESSAGES_PER_WORKER + 1)
    assert desk.messages()[-1] == ids(waiting), "in the order of their arrival"


def test_a_second_message_waits_a_moment_for_more_requests(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pending_module, "SPACING_S", 0.5)
    desk.sent("under way")
    began = time.monotonic()
    waiting = [desk.submit("one")]
    desk.wait(1)
    waiting.append(desk.submit("two"))
    desk.wait(2)
    assert time.monotonic() - began >= 0.4
    assert desk.messages()[-1] == ids(waiting)


def test_a_second_message_waits_no_longer_when_the_first_is_answered(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pending_module, "SPACING_S", SOON_S)
    first = desk.sent("under way")
    waits = desk.submit("waits")
    desk.answer(first)
    desk.wait(2)
    assert desk.messages()[-1] == ids([waits])


def test_each_worker_has_its_share_of_messages_under_way(desk: Desk, fleet: Fleet) -> None:
    fleet.join("cpu:1", SPACE)
    for i in range(2 * MESSAGES_PER_WORKER):
        desk.sent(f"under way {i}")
    desk.submit("waits")
    desk.wait(2 * MESSAGES_PER_WORKER)


def test_a_message_makes_room_when_its_last_request_is_answered(desk: Desk, fleet: Fleet) -> None:
    first, *_ = desk.fill()
    pair = [desk.submit("one"), desk.submit("two")]
    desk.answer(first)
    desk.wait(MESSAGES_PER_WORKER + 1)
    desk.submit("three")
    desk.answer(pair[0])
    desk.wait(MESSAGES_PER_WORKER + 1)
    desk.answer(pair[1])
    desk.wait(MESSAGES_PER_WORKER + 2)


def test_spaces_and_readings_do_not_wait_for_each_other(desk: Desk) -> None:
    desk.fill()
    desk.submit("waits")
    desk.sent("one", space=OTHER)
    desk.sent("one", reading="count")
    desk.sent("one", reading="bare")
    desk.wait(MESSAGES_PER_WORKER + 3)


def test_a_message_holds_so_many_characters_unless_a_single_request_has_more(desk: Desk) -> None:
    under_way = desk.fill()
    waiting = [desk.submit("x" * size) for size in (60, 40, 1, 250, 60, 41)]
    desk.answer(*under_way)
    desk.wait(2 * MESSAGES_PER_WORKER)
    desk.answer(*waiting[:2])
    desk.wait(2 * MESSAGES_PER_WORKER + 1)
    cuts = [waiting[0:2], waiting[2:3], waiting[3:4], waiting[4:5], waiting[5:6]]
    assert desk.messages()[MESSAGES_PER_WORKER:] == [ids(cut) for cut in cuts]


def test_a_message_holds_128_requests_at_most(desk: Desk) -> None:
    first, *_ = desk.fill()
    waiting = [desk.submit("") for _ in range(130)]
    desk.answer(first)
    desk.wait(MESSAGES_PER_WORKER + 1)
    assert desk.messages()[-1] == ids(waiting[:128])


# Nobody waits any more


def test_a_dropped_request_that_waits_is_never_sent(desk: Desk, fleet: Fleet) -> None:
    first, *_ = desk.fill()
    gone, stays = desk.submit("gone"), desk.submit("stays")
    desk.outbox.drop([gone])
    desk.answer(first)
    desk.wait(MESSAGES_PER_WORKER + 1)
    assert desk.messages()[-1] == [stays.request.id]
    assert abandoned(fleet.redis, [gone.request.id]) == set(), "no worker knows of it"


def test_a_dropped_request_that_was_sent_is_marked_for_its_worker(desk: Desk, fleet: Fleet) -> None:
    gone = desk.sent("gone")
    take(fleet.redis, [gone.request], worker_id="cpu@host")
    desk.outbox.drop([gone])
    until(lambda: abandoned(fleet.redis, [gone.request.id]))
    assert desk.outbox.pending() == []


def test_dropped_requests_make_room(desk: Desk) -> None:
    desk.outbox.drop(desk.fill())
    desk.fill()
    desk.wait(2 * MESSAGES_PER_WORKER)


def test_a_request_is_dropped_once(desk: Desk) -> None:
    first, *_ = desk.fill()
    desk.outbox.drop([first, first])
    desk.outbox.drop([first])
    desk.submit("next")
    desk.submit("waits")
    desk.wait(MESSAGES_PER_WORKER + 1)
    assert desk.outbox.texts("cpu") == MESSAGES_PER_WORKER + 1


def test_an_answer_cannot_be_cancelled(desk: Desk) -> None:
    """The event loop cancels the future of a wait that it gives up; the outbox must still be able to settle it."""
    pending = desk.sent("one")
    assert not pending.answer.cancel()
    desk.answer(pending)
    assert pending.answer.result(0) == Answer()


def test_without_redis_a_drop_is_only_a_hint(desk: Desk, fleet: Fleet) -> None:
    gone = desk.sent("gone")
    fleet.server.connected = False
    desk.outbox.drop([gone])
    time.sleep(QUIET_S)
    fleet.server.connected = True
    desk.sent("the courier goes on")


# What waits is counted


def test_texts_count_from_their_arrival_until_they_are_answered_failed_or_dropped(desk: Desk) -> None:
    under_way = desk.fill()
    waiting = [desk.submit("a", "b", "c") for _ in range(3)]
    elsewhere = desk.submit("a", "b", device="mps")
    assert (desk.outbox.texts("cpu"), desk.outbox.texts("mps"), desk.outbox.texts("cuda")) == (13, 2, 0)
    assert desk.outbox.waiting() == {"cpu": 13, "mps": 2}
    desk.outbox.drop([under_way[0], waiting[0]])
    desk.outbox.fail([under_way[1], waiting[1]], TimedOutError("late"))
    desk.answer(*under_way[2:], waiting[2], elsewhere)
    assert desk.outbox.waiting() == {}
    assert desk.outbox.texts("cpu") == 0


def test_a_failed_request_has_its_error_and_is_marked_for_its_worker(desk: Desk, fleet: Fleet) -> None:
    pending = desk.sent("one")
    desk.outbox.fail([pending], TimedOutError("late"))
    with pytest.raises(TimedOutError, match="late"):
        pending.answer.result(0)
    until(lambda: abandoned(fleet.redis, [pending.request.id]))


# Requests that cannot be sent


def test_a_request_without_a_live_worker_fails_with_the_reason(desk: Desk, fleet: Fleet) -> None:
    worker = fleet.roster.live()[0]
    fleet.leave(worker)
    pending = desk.submit("one")
    with pytest.raises(UnavailableError, match="no live worker serves 'm'"):
        pending.answer.result(SOON_S)
    assert fleet.outbox.sent == []


@pytest.mark.parametrize("error", [redis.ConnectionError("refused"), OperationalError("refused")])
def test_without_redis_requests_fail_and_take_no_room(desk: Desk, fleet: Fleet, error: Exception) -> None:
    fleet.outbox.error = error
    for _ in range(3 * MESSAGES_PER_WORKER):
        with pytest.raises(UnavailableError, match="Redis does not answer"):
            desk.submit("one").answer.result(SOON_S)
    fleet.outbox.error = None
    desk.fill()
    assert desk.outbox.texts("cpu") == MESSAGES_PER_WORKER


def test_an_unforeseen_error_fails_its_requests_and_not_the_later_ones(desk: Desk, fleet: Fleet) -> None:
    fleet.outbox.error = ZeroDivisionError("by zero")
    with pytest.raises(SemelError, match="ZeroDivisionError: by zero"):
        desk.submit("one").answer.result(SOON_S)
    fleet.outbox.error = None
    desk.sent("two")


# Sent again


def test_a_lost_request_travels_again_under_its_own_name(desk: Desk, fleet: Fleet) -> None:
    pending = desk.sent("one")
    desk.outbox.send_again([pending], after_death=False)
    first, second = desk.wait(2)
    assert first == second
    desk.answer(pending)
    assert desk.outbox.texts("cpu") == 0


def test_lost_requests_share_a_message_again_but_suspects_travel_alone(desk: Desk) -> None:
    under_way = desk.fill()
    requests = [desk.submit(f"text {i}") for i in range(3)]
    desk.answer(*under_way)
    desk.wait(MESSAGES_PER_WORKER + 1)
    desk.outbox.send_again(requests, after_death=False)
    assert len(desk.wait(MESSAGES_PER_WORKER + 2)[-1].requests) == 3
    desk.outbox.send_again(requests, after_death=True)
    alone = desk.wait(MESSAGES_PER_WORKER + 5)[-3:]
    assert [[request.deaths for request in message.requests] for message in alone] == [[1], [1], [1]]


def test_others_do_not_travel_with_a_suspect(desk: Desk) -> None:
    suspect, *others = desk.fill()
    waiting = [desk.submit("one"), desk.submit("two")]
    desk.outbox.send_again([suspect], after_death=True)
    desk.wait(MESSAGES_PER_WORKER + 1)
    desk.answer(others[0])
    desk.wait(MESSAGES_PER_WORKER + 2)
    assert desk.messages()[-2:] == [[suspect.request.id], ids(waiting)]


def test_a_request_that_ended_meanwhile_is_not_sent_again(desk: Desk) -> None:
    pending = desk.sent("one")
    desk.answer(pending)
    desk.outbox.send_again([pending], after_death=False)
    desk.wait(1)


def test_a_request_that_waits_to_be_sent_again_is_not_sent_twice(desk: Desk) -> None:
    """The care looks every second, and a request may wait longer than that until there is room."""
    suspect = desk.sent("suspect")
    with desk.busy():
        desk.outbox.send_again([suspect], after_death=True)
        desk.outbox.send_again([suspect], after_death=True)
    assert [request.deaths for request in desk.copies(suspect)] == [0, 1]
    desk.answer(suspect)
    assert desk.room() == MESSAGES_PER_WORKER


def test_a_request_that_is_dropped_while_it_waits_to_be_sent_again_is_not_sent(desk: Desk) -> None:
    gone = desk.sent("gone")
    with desk.busy():
        desk.outbox.send_again([gone], after_death=False)
        desk.outbox.drop([gone])
    assert len(desk.copies(gone)) == 1
    assert desk.room() == MESSAGES_PER_WORKER


def test_a_request_that_is_answered_while_it_waits_to_be_sent_again_is_not_sent(desk: Desk) -> None:
    """The message was not lost after all, or the worker was only late."""
    answered = desk.sent("answered")
    with desk.busy():
        desk.outbox.send_again([answered], after_death=False)
        desk.answer(answered)
    assert len(desk.copies(answered)) == 1
    assert desk.room() == MESSAGES_PER_WORKER


def test_a_request_whose_copy_may_still_be_in_a_queue_is_marked_when_it_is_dropped(desk: Desk, fleet: Fleet) -> None:
    gone = desk.sent("gone")
    with desk.busy():
        desk.outbox.send_again([gone], after_death=False)
        desk.outbox.drop([gone])
    assert abandoned(fleet.redis, [gone.request.id])


# Under load


def test_every_request_ends_once_and_room_and_counts_return_whatever_happens(desk: Desk, fleet: Fleet) -> None:
    chance = random.Random(7)
    ends: list[str] = []

    def live(number: int) -> None:
        pending = desk.submit(f"{number}")
        pending.answer.add_done_callback(lambda _: ends.append(pending.request.id))
        for _ in range(chance.randrange(4)):
            time.sleep(chance.random() * 0.002)
            desk.outbox.send_again([pending], after_death=chance.random() < 0.5)
        end = chance.choice(["answer", "answer", "fail", "drop"])
        if end == "answer":
            desk.answer(pending)
        elif end == "fail":
            desk.outbox.fail([pending], TimedOutError("late"))
        else:
            desk.outbox.drop([pending])
            ends.append(pending.request.id)
        desk.outbox.send_again([pending], after_death=False)
        desk.answer(pending)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(live, range(200)))
    assert len(ends) == len(set(ends)) == 200
    assert desk.outbox.pending() == []
    assert desk.outbox.waiting() == {}
    time.sleep(QUIET_S)
    assert desk.room() == MESSAGES_PER_WORKER


# The end


def test_closing_fails_what_waits_whether_it_was_sent_or_not(desk: Desk) -> None:
    requests = [*desk.fill(), desk.submit("waits")]
    desk.outbox.close()
    for pending in requests:
        with pytest.raises(UnavailableError, match="the server is stopping"):
            pending.answer.result(0)
    assert desk.outbox.waiting() == {}


def test_closing_informs_the_workers(desk: Desk, fleet: Fleet) -> None:
    requests = desk.fill()
    desk.outbox.close()
    assert abandoned(fleet.redis, ids(requests)) == set(ids(requests))


def test_a_request_that_comes_after_the_end_fails_at_once(desk: Desk) -> None:
    desk.outbox.close()
    try:
        pending = desk.submit("too late")
    except UnavailableError:
        return
    with pytest.raises(UnavailableError, match="the server is stopping"):
        pending.answer.result(0.1)


def test_a_message_goes_to_the_pool_that_is_best_when_it_is_sent(
    desk: Desk, fleet: Fleet, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_module, "time", clock)
    pending = desk.sent("one")
    fleet.join("mps", SPACE)
    desk.outbox.send_again([pending], after_death=False)
    desk.wait(2)
    assert fleet.outbox.queues == ["interactive.cpu", "interactive.mps"]


def test_a_request_is_passed_by_when_a_later_message_of_its_queue_was_taken(
    desk: Desk, fleet: Fleet, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_module, "time", clock)
    early = desk.sent("early")
    clock.now += 1.0
    middle = desk.sent("middle")
    clock.now += 1.0
    late = desk.sent("late")
    desk.outbox.taken(middle)
    assert [desk.outbox.passed_by(each) for each in (early, middle, late)] == [True, False, False]
    fleet.leave(fleet.roster.live()[0])
    fleet.join("mps", SPACE)
    clock.now += 1.0
    desk.answer(desk.sent("on another device"))
    assert [desk.outbox.passed_by(each) for each in (early, middle, late)] == [True, False, False]
    desk.answer(late)
    assert desk.outbox.passed_by(middle)
