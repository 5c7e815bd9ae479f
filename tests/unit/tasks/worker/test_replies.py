"""Small requests: the answer that goes back, and requests that are passed on to another worker."""

from dataclasses import replace
from typing import Any

import pytest
from kombu.exceptions import OperationalError

from semel.errors import BackendError, ModelLoadError
from semel.tasks.fleet.failover import Failover
from semel.tasks.fleet.meter import Message
from semel.tasks.jobs.moves import JobMoves
from semel.tasks.queue.message import Answer, Request
from semel.tasks.queue.names import EMBED_TEXTS, READ_TEXTS
from semel.tasks.worker import replies as replies_module
from semel.tasks.worker.replies import PassOn, Replies
from semel.values.text import Outcome
from tests.support.computing import Device
from tests.support.fleet import OTHER, SPACE, Clock, Fleet
from tests.support.values import PRODUCER, vectors


class Desk:
    """The replies of a worker, and what they ask of the rest of it.

    Attributes:
        passes: whether another worker takes what is passed on.
    """

    def __init__(self, fleet: Fleet, device: Device) -> None:
        self._fleet = fleet
        self._space = device.space
        self.passes = False
        self.passed_on: list[tuple[str, Request]] = []
        self.refused: list[tuple[str, bytes, str]] = []
        self.lost: list[BackendError] = []
        self.messages: list[Message] = []
        self.replies = Replies(
            fleet.redis,
            device.models,
            device.embedder,
            self,  # type: ignore[arg-type]  # in the place of DeviceLoss
            self._pass_on,  # type: ignore[arg-type]
            refuse=self._refuse,
            record=self.messages.append,
        )

    def stop_worker(self, error: BackendError) -> None:
        self.lost.append(error)

    def _pass_on(self, task: str, request: Request) -> bool:
        self.passed_on.append((task, request))
        return self.passes

    def _refuse(self, model: str, fingerprint: bytes, why: str) -> bool:
        self.refused.append((model, fingerprint, why))
        return False

    def request(self, *texts: str, prompt_name: str = "", **changed: Any) -> Request:
        space = self._space(prompt_name)
        plain = Request("r" * 32, "bell", "m", prompt_name, space.fingerprint.hex(), list(texts), sent_at=1.0)
        return replace(plain, **changed)

    def answer(self) -> Answer | None:
        """The answer that its waiter finds."""
        stored = self._fleet.redis.get(f"semel:answer:{'r' * 32}")
        return None if stored is None else Answer.from_json(stored)


@pytest.fixture
def desk(fleet: Fleet, device: Device) -> Desk:
    return Desk(fleet, device)


def failure(desk: Desk) -> str:
    answer = desk.answer()
    assert answer is not None
    assert answer.error is not None
    return answer.error.code


def test_missing_texts_are_computed_and_the_answer_names_each_position(
    desk: Desk, fleet: Fleet, device: Device
) -> None:
    (shared, *_) = device.missing("shared")
    fleet.store.put_many(
        device.space(), [shared], vectors(1, 8), tokens=[1], truncated=[False], producer=PRODUCER
    )  # another worker was faster
    desk.replies.embed(desk.request("one", "shared", "poison", "two"))
    answer = desk.answer()
    assert answer is not None
    assert (answer.computed, answer.coalesced, list(answer.errors)) == ([0, 3], [1], [2])
    assert answer.seconds > 0
    assert fleet.store.lookup(list(device.missing("one", "two"))).all_present
    counted = {Outcome.COMPUTED: 2, Outcome.COALESCED: 1, Outcome.FAILED: 1}
    assert [(message.model, message.sent_at, message.outcomes) for message in desk.messages] == [("m", 1.0, counted)]


def test_tokens_are_counted_with_the_prompt_and_nothing_is_computed(desk: Desk, device: Device) -> None:
    desk.replies.read(desk.request("a b", "w " * 40, prompt_name="query", reading="count"))
    assert desk.answer() == Answer(readings=[[3, False], [20, True]])
    assert device.engine.stats.texts == 0
    assert desk.messages == []


@pytest.mark.parametrize(("reading", "expected"), [("spell", ["[CLS]", "find", "a"]), ("bare", ["find", "a"])])
def test_tokens_are_spelled_with_the_prompt(desk: Desk, reading: str, expected: list[str]) -> None:
    desk.replies.read(desk.request("a", prompt_name="query", reading=reading))
    answer = desk.answer()
    assert answer is not None
    assert [token["text"] for token in answer.readings[0]] == expected


def test_a_request_for_other_weights_is_passed_on_and_gets_no_answer_here(desk: Desk) -> None:
    desk.passes = True
    request = desk.request("one", fingerprint=OTHER.fingerprint.hex())
    desk.replies.embed(request)
    assert desk.passed_on == [(EMBED_TEXTS, request)]
    assert [(model, fingerprint) for model, fingerprint, _ in desk.refused] == [("m", OTHER.fingerprint)]
    assert desk.answer() is None


def test_when_no_other_worker_can_take_it_the_caller_gets_the_reason(desk: Desk) -> None:
    desk.replies.embed(desk.request("one", fingerprint=OTHER.fingerprint.hex()))
    answer = desk.answer()
    assert answer is not None
    assert answer.error is not None
    assert answer.error.code == ModelLoadError.code
    assert "'m' has other weights on this worker" in answer.error.message


def test_an_unknown_model_or_prompt_is_an_answer_too(desk: Desk) -> None:
    desk.replies.read(desk.request("one", model="unknown", reading="count"))
    assert failure(desk) == "model_not_found"
    assert desk.passed_on[0][0] == READ_TEXTS
    desk.replies.embed(replace(desk.request("one"), prompt_name="unknown"))
    assert failure(desk) == ModelLoadError.code


def break_device(device: Device, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(device.embedder, "compute", fail)


def test_a_lost_device_stops_the_worker_and_its_request_goes_to_another(
    desk: Desk, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.passes = True
    error = BackendError("the device is gone")
    break_device(device, monkeypatch, error)
    desk.replies.embed(desk.request("one", passed_on=1))
    assert desk.lost == [error]
    assert len(desk.passed_on) == 1
    assert desk.answer() is None


def test_a_request_that_may_have_killed_two_devices_meets_no_third(
    desk: Desk, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.passes = True
    break_device(device, monkeypatch, BackendError("the device is gone"))
    desk.replies.embed(desk.request("one", passed_on=2))
    assert desk.passed_on == []
    assert failure(desk) == BackendError.code


def test_an_unforeseen_error_is_an_answer_and_no_time_out(
    desk: Desk, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_device(device, monkeypatch, ZeroDivisionError("by zero"))
    desk.replies.embed(desk.request("one"))
    assert failure(desk) == "internal_error"
    assert desk.lost == []


def test_an_answer_that_cannot_be_delivered_does_not_hurt_the_worker(desk: Desk, fleet: Fleet) -> None:
    fleet.server.connected = False
    desk.replies.embed(desk.request("one"))
    fleet.server.connected = True
    assert desk.answer() is None


# Passing on


@pytest.fixture
def pass_on(fleet: Fleet, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> PassOn:
    """That of the worker `cuda:0@host`."""
    monkeypatch.setattr(replies_module, "time", clock)
    fleet.join("cuda:0")
    failover = Failover(fleet.jobs, JobMoves(fleet.db), fleet.roster, use_case="auto", fail_after_s=60)
    return PassOn(fleet.outbox, failover, "cuda:0@host", "cuda:0", "auto")  # type: ignore[arg-type]


REQUEST = Request("r" * 32, "bell", "m", "", SPACE.fingerprint.hex(), ["a secret"], sent_at=1.0)


def test_a_request_goes_to_the_best_pool_that_serves_its_space(pass_on: PassOn, fleet: Fleet, clock: Clock) -> None:
    fleet.join("cpu")
    fleet.join("mps")
    fleet.join("mlx", OTHER)
    assert pass_on(READ_TEXTS, replace(REQUEST, passed_on=2))
    ((task, (message,), queue),) = fleet.outbox.sent
    assert (task, queue) == (READ_TEXTS, "interactive.mps")
    assert Request.from_message(message) == replace(REQUEST, passed_on=3)
    assert "secret" not in fleet.outbox.shown[0]
    assert clock.slept == [0.05]


def test_a_worker_that_is_alone_passes_nothing_on(pass_on: PassOn, fleet: Fleet) -> None:
    fleet.join("cpu", OTHER)
    assert not pass_on(EMBED_TEXTS, REQUEST)
    assert fleet.outbox.sent == []


@pytest.mark.parametrize(("passed_on", "queue"), [(3, "interactive.cuda"), (4, "interactive.cpu")])
def test_after_some_passes_a_request_avoids_its_own_queue(
    pass_on: PassOn, fleet: Fleet, passed_on: int, queue: str
) -> None:
    fleet.join("cuda:1")
    fleet.join("cpu")
    assert pass_on(EMBED_TEXTS, replace(REQUEST, passed_on=passed_on))
    assert fleet.outbox.queues == [queue]


def test_a_request_returns_to_its_own_queue_when_only_that_one_has_a_worker(pass_on: PassOn, fleet: Fleet) -> None:
    fleet.join("cuda:1")
    assert pass_on(EMBED_TEXTS, replace(REQUEST, passed_on=10))
    assert fleet.outbox.queues == ["interactive.cuda"]


def test_a_request_is_not_passed_around_for_ever(pass_on: PassOn, fleet: Fleet) -> None:
    fleet.join("cpu")
    assert pass_on(EMBED_TEXTS, replace(REQUEST, passed_on=19))
    assert not pass_on(EMBED_TEXTS, replace(REQUEST, passed_on=20))


def test_without_redis_a_request_is_answered_here(pass_on: PassOn, fleet: Fleet) -> None:
    fleet.join("cpu")
    fleet.outbox.error = OperationalError("connection refused")
    assert not pass_on(EMBED_TEXTS, REQUEST)
    fleet.outbox.error = None
    fleet.server.connected = False
    assert not pass_on(EMBED_TEXTS, REQUEST)
