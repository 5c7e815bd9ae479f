"""The answers to the requests of a message: computed together, and each request is answered for itself."""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from semel.cache.keys import input_keys
from semel.errors import BackendError, ModelLoadError
from semel.tasks.fleet.failover import Failover
from semel.tasks.fleet.meter import Message
from semel.tasks.jobs.moves import JobMoves
from semel.tasks.queue.doorbell import State, abandon, abandoned, states, take
from semel.tasks.queue.message import Answer, Request, RequestMessage
from semel.tasks.queue.names import EMBED_TEXTS, READ_TEXTS
from semel.tasks.worker import pass_on as pass_on_module
from semel.tasks.worker import replies as replies_module
from semel.tasks.worker.held import HeldRequests
from semel.tasks.worker.pass_on import PassOn
from semel.tasks.worker.replies import Replies
from semel.values.text import ItemError, Outcome
from semel.values.variant import Variant
from tests.support.computing import Device, device_on
from tests.support.fleet import OTHER, Clock, Fleet, requests_of
from tests.support.processes import wait_until
from tests.support.values import PRODUCER, vectors

HERE = "cpu@host"


class Desk:
    """The replies of a worker, and what they ask of the rest of it."""

    def __init__(self, fleet: Fleet, device: Device) -> None:
        self.fleet = fleet
        self._space = device.space
        self.refused: list[tuple[str, bytes, str]] = []
        self.lost: list[BackendError] = []
        self.messages: list[Message] = []
        self.held = HeldRequests(fleet.redis, worker_id=HERE)
        failover = Failover(fleet.jobs, JobMoves(fleet.db), fleet.roster, use_case="auto", fail_after_s=60)
        self.replies = Replies(
            fleet.redis,
            device.models,
            device.embedder,
            self,  # type: ignore[arg-type]  # in the place of DeviceLoss
            self.held,
            PassOn(fleet.outbox, fleet.redis, failover, HERE, "cpu", "auto"),
            refuse=self._refuse,
            record=self.messages.append,
        )

    def stop_worker(self, error: BackendError) -> None:
        self.lost.append(error)

    def _refuse(self, model: str, fingerprint: bytes, why: str) -> bool:
        self.refused.append((model, fingerprint, why))
        return False

    def message(self, *requests: Request, prompt_name: str = "", **changed: Any) -> RequestMessage:
        space = self._space(prompt_name)
        plain = RequestMessage("bell", "m", prompt_name, space.fingerprint.hex(), list(requests))
        return replace(plain, **changed)

    def state(self, name: str = "r1") -> State:
        return states(self.fleet.redis, [name])[0]

    def answer(self, name: str = "r1") -> Answer:
        """The answer that a waiter finds."""
        answer = self.state(name).answer
        assert answer is not None, f"{name} has no answer"
        return answer

    def error(self, name: str = "r1") -> ItemError:
        """The error of a whole request."""
        error = self.answer(name).error
        assert error is not None, f"{name} has no error"
        return error

    def passed_on(self) -> list[tuple[str, RequestMessage]]:
        """Task and message of everything that was passed on."""
        return [(task, RequestMessage.from_message(message)) for task, (message,), _ in self.fleet.outbox.sent]


def request(name: str, *texts: str, left_s: float = 60.0, **changed: Any) -> Request:
    plain = Request(name, list(texts), sent_at=1.0, expires_at=time.time() + left_s)
    return replace(plain, **changed)


@pytest.fixture
def desk(fleet: Fleet, device: Device, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.setattr(pass_on_module, "time", clock)
    return Desk(fleet, device)


@pytest.fixture
def another(fleet: Fleet, device: Device) -> None:
    """Another worker that serves the same spaces, and those of other weights."""
    fleet.join("mps", device.space(), OTHER)


# Computed


def test_missing_texts_are_computed_and_the_answer_names_each_position(
    desk: Desk, fleet: Fleet, device: Device
) -> None:
    (shared, *_) = device.missing("shared")
    fleet.store.put_many(
        device.space(), [shared], vectors(1, 8), tokens=[1], truncated=[False], producer=PRODUCER
    )  # another worker was faster
    desk.replies.embed(desk.message(request("r1", "one", "shared", "poison", "two")))
    answer = desk.answer()
    assert (answer.computed, answer.coalesced, list(answer.errors)) == ([0, 3], [1], [2])
    assert answer.seconds > 0
    assert fleet.store.lookup(list(device.missing("one", "two"))).all_present
    counted = {Outcome.COMPUTED: 2, Outcome.COALESCED: 1, Outcome.FAILED: 1}
    assert [(message.model, message.sent_at, message.outcomes) for message in desk.messages] == [("m", 1.0, counted)]


def rung(monkeypatch: pytest.MonkeyPatch) -> dict[str, Answer]:
    """The answers that a worker gives from now on, as it gives them."""
    given: dict[str, Answer] = {}
    monkeypatch.setattr(replies_module, "ring", lambda _client, *, reply_to, answers: given.update(answers))
    return given


def test_a_small_answer_has_the_rows_that_were_stored(
    desk: Desk, fleet: Fleet, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = rung(monkeypatch)
    (shared, *_) = device.missing("shared")
    fleet.store.put_many(device.space(), [shared], vectors(1, 8), tokens=[1], truncated=[False], producer=PRODUCER)
    desk.replies.embed(desk.message(request("r1", "one", "shared", "two")))
    found = fleet.store.get_many(list(device.missing("one", "two")), dim=8)
    assert found.vectors is not None
    rows = given["r1"].rows
    assert [rows[i].vector for i in (0, 2)] == [row.tobytes() for row in found.vectors]
    assert [(rows[i].tokens, rows[i].truncated) for i in (0, 2)] == list(
        zip(found.tokens.tolist(), found.truncated.tolist(), strict=True)
    )
    assert set(rows) == {0, 2}, "the row of another worker is read from the cache"


def test_a_large_answer_has_none(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replies_module, "_MOST_BYTES", 2 * 8 * 4)
    given = rung(monkeypatch)
    desk.replies.embed(desk.message(request("r1", "one", "two"), request("r2", "three", "four", "five")))
    assert {name: len(answer.rows) for name, answer in given.items()} == {"r1": 2, "r2": 0}
    assert given["r2"].computed == [0, 1, 2]


def test_a_text_that_several_requests_share_is_computed_once_and_each_gets_its_answer(
    desk: Desk, device: Device
) -> None:
    desk.replies.embed(desk.message(request("r1", "one", "shared"), request("r2", "shared"), request("r3", "three")))
    assert [desk.answer(name).computed for name in ("r1", "r2", "r3")] == [[0, 1], [0], [0]]
    assert device.engine.stats.texts == 3
    assert [message.outcomes for message in desk.messages] == [{Outcome.COMPUTED: n} for n in (2, 1, 1)]


@pytest.fixture
def failing(fleet: Fleet, tmp_path: Path) -> Iterator[Device]:
    """A model that fails on `poison`, gives NaN for `broken`, and reads five words."""
    source = "fake:?dim=8&max_tokens=5&fail_on=poison&nan_on=broken"
    with device_on(fleet.store, tmp_path, source, max_batch_tokens=200) as made:
        yield made


def test_of_many_requests_in_a_message_only_those_with_a_bad_text_fail(fleet: Fleet, failing: Device) -> None:
    desk = Desk(fleet, failing)
    texts = {f"r{i}": f"text {i}" for i in range(200)}
    texts |= {"r50": "poison", "r100": "broken", "r150": "word " * 300}
    desk.replies.embed(desk.message(*(request(name, text) for name, text in texts.items())))
    answers = {name: desk.answer(name) for name in texts}
    assert {name: error.code for name in texts for error in answers[name].errors.values()} == {
        "r50": "backend_error",
        "r100": "invalid_vector",
    }
    assert all(answers[name].computed == [0] for name in texts if name not in ("r50", "r100"))
    assert all(answer.error is None for answer in answers.values())
    assert desk.held.texts == 0


def test_a_request_is_answered_before_the_later_ones_are_computed(desk: Desk, device: Device) -> None:
    batches: list[bool] = []

    def hold_the_third() -> None:
        batches.append(True)
        if len(batches) == 3:
            wait_until(lambda: desk.state("r1").answer is not None, timeout_s=5)

    device.on_batch = hold_the_third
    desk.replies.embed(desk.message(request("r1", "short"), request("r2", *many(8))))
    assert len(batches) > 3
    assert len(desk.answer("r2").computed) == 8


def many(count: int, *, tokens: int = 8) -> list[str]:
    """Texts that fill more than one batch."""
    return [f"{i} " + "word " * (tokens - 2) + "end" for i in range(count)]


def test_suspects_are_computed_alone(desk: Desk, device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    alone: list[bool] = []
    compute = device.embedder.compute

    def spy(*args: Any, **options: Any) -> Any:
        alone.append(options["terms"].alone)
        return compute(*args, **options)

    monkeypatch.setattr(device.embedder, "compute", spy)
    desk.replies.embed(desk.message(request("r1", "one", deaths=1)))
    desk.replies.embed(desk.message(request("r2", "two")))
    assert alone == [True, False]


# Read


def test_tokens_are_counted_with_the_prompt_and_nothing_is_computed(desk: Desk, device: Device) -> None:
    requests = request("r1", "a b", "w " * 40), request("r2", "a")
    desk.replies.read(desk.message(*requests, prompt_name="query", reading="count"))
    assert desk.answer("r1") == Answer(readings=[[3, False], [20, True]])
    assert desk.answer("r2") == Answer(readings=[[2, False]])
    assert device.engine.stats.texts == 0
    assert desk.messages == []


def test_tokens_are_counted_in_the_variant_of_the_message(desk: Desk) -> None:
    variant = Variant(max_tokens=2).to_json()
    desk.replies.read(desk.message(request("r1", "a", "a b c"), reading="count", variant=variant))
    assert desk.answer() == Answer(readings=[[1, False], [2, True]])


@pytest.mark.parametrize("namespace", ["", "tenant"])
def test_texts_are_stored_under_the_keys_of_their_variant_and_namespace(
    desk: Desk, fleet: Fleet, device: Device, namespace: str
) -> None:
    variant = Variant(2, "left")
    sent = desk.message(request("r1", "the very end"), variant=variant.to_json(), namespace=namespace)
    desk.replies.embed(sent)
    keys = input_keys(device.space().with_variant(variant).within(namespace).key_base, ["the very end"])
    found = fleet.store.get_many(keys, dim=8)
    assert found.vectors is not None
    assert (found.vectors == device.model.backend.embed_texts(["very end"])).all()


@pytest.mark.parametrize(("reading", "expected"), [("spell", ["[CLS]", "find", "a"]), ("bare", ["find", "a"])])
def test_tokens_are_spelled_with_the_prompt(desk: Desk, reading: str, expected: list[str]) -> None:
    desk.replies.read(desk.message(request("r1", "a"), prompt_name="query", reading=reading))
    assert [token["text"] for token in desk.answer().readings[0]] == expected


# Copies, late requests, and clients that have gone


def test_a_second_copy_is_dropped_and_the_rest_of_its_message_is_answered(desk: Desk, fleet: Fleet) -> None:
    take(fleet.redis, requests_of("r1"), worker_id="another")
    desk.replies.embed(desk.message(request("r1", "one"), request("r2", "two")))
    assert desk.state("r1") == State(worker="another")
    assert desk.answer("r2").computed == [0]


def test_a_message_of_copies_loads_no_model(desk: Desk, device: Device) -> None:
    desk.replies.embed(desk.message(request("r1", "one")))
    computed, recorded = device.engine.stats.texts, len(desk.messages)
    desk.replies.embed(desk.message(request("r1", "one"), model="unknown"))
    assert (device.engine.stats.texts, len(desk.messages), desk.refused) == (computed, recorded, [])


def test_a_late_request_is_dropped(desk: Desk, fleet: Fleet, device: Device) -> None:
    desk.replies.embed(desk.message(request("r1", "one", left_s=-1.0), request("r2", "two")))
    assert desk.state("r1") == State()
    assert device.engine.stats.texts == 1


def gone_after_a_batch(desk: Desk, device: Device, *names: str) -> None:
    def leave() -> None:
        device.on_batch = lambda: None
        abandon(desk.fleet.redis, names)
        desk.held.look()

    device.on_batch = leave


def test_what_nobody_waits_for_any_more_is_not_computed(desk: Desk, device: Device) -> None:
    stays, gone = many(4), [f"gone {text}" for text in many(40)]
    gone_after_a_batch(desk, device, "r2")
    desk.replies.embed(desk.message(request("r1", *stays), request("r2", *gone)))
    assert desk.answer("r1").computed == [0, 1, 2, 3]
    assert abandoned(desk.fleet.redis, ["r2"]) == {"r2"}, "it gets no answer"
    assert device.engine.stats.texts < 10


def test_a_text_is_computed_while_one_of_its_requests_is_waited_for(desk: Desk, device: Device) -> None:
    texts = many(20)
    gone_after_a_batch(desk, device, "r2")
    desk.replies.embed(desk.message(request("r1", *texts), request("r2", *texts)))
    assert desk.answer("r1").computed == list(range(20))


def test_when_all_have_gone_the_rest_is_left(desk: Desk, device: Device) -> None:
    gone_after_a_batch(desk, device, "r1", "r2")
    desk.replies.embed(desk.message(request("r1", *many(20)), request("r2", *many(40))))
    assert device.engine.stats.texts < 10
    assert desk.held.texts == 0
    desk.replies.embed(desk.message(request("r3", *many(20))))
    assert len(desk.answer("r3").errors) == 0, "the next one gets every vector"


# Other workers


def test_requests_for_other_weights_are_passed_on_and_get_no_answer_here(desk: Desk, another: None) -> None:
    message = desk.message(request("r1", "one"), request("r2", "two"), fingerprint=OTHER.fingerprint.hex())
    desk.replies.embed(message)
    assert desk.passed_on() == [(EMBED_TEXTS, replace(message, passed_on=1))]
    assert [(model, fingerprint) for model, fingerprint, _ in desk.refused] == [("m", OTHER.fingerprint)]
    assert (desk.state("r1"), desk.state("r2")) == (State(), State()), "the other worker may take them"
    assert desk.held.texts == 0


def test_when_no_other_worker_can_take_them_each_caller_gets_the_reason(desk: Desk) -> None:
    requests = request("r1", "one"), request("r2", "two")
    desk.replies.embed(desk.message(*requests, fingerprint=OTHER.fingerprint.hex()))
    for name in ("r1", "r2"):
        assert desk.error(name).code == ModelLoadError.code
        assert "'m' has other weights on this worker" in desk.error(name).message


def test_an_unknown_model_or_prompt_is_an_answer_too(desk: Desk) -> None:
    desk.replies.read(desk.message(request("r1", "one"), model="unknown", reading="count"))
    assert desk.error("r1").code == "model_not_found"
    desk.replies.embed(replace(desk.message(request("r2", "one")), prompt_name="unknown"))
    assert desk.error("r2").code == ModelLoadError.code


def test_what_reads_texts_is_passed_on_as_such(desk: Desk, another: None) -> None:
    message = desk.message(request("r1", "one"), fingerprint=OTHER.fingerprint.hex(), reading="count")
    desk.replies.read(message)
    assert desk.passed_on() == [(READ_TEXTS, replace(message, passed_on=1))]


# A device that is lost, and other errors


def break_device(device: Device, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(device.embedder, "compute", fail)


def test_a_lost_device_stops_the_worker_and_each_request_goes_to_another_alone(
    desk: Desk, device: Device, another: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = BackendError("the device is gone")
    break_device(device, monkeypatch, error)
    desk.replies.embed(desk.message(request("r1", "one"), request("r2", "two")))
    assert desk.lost == [error]
    assert [[(each.id, each.deaths) for each in message.requests] for _, message in desk.passed_on()] == [
        [("r1", 1)],
        [("r2", 1)],
    ]
    assert (desk.state("r1"), desk.state("r2")) == (State(), State())


def test_a_lost_device_without_another_worker_is_an_answer(
    desk: Desk, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_device(device, monkeypatch, BackendError("the device is gone"))
    desk.replies.embed(desk.message(request("r1", "one"), request("r2", "two")))
    assert [desk.error(name).code for name in ("r1", "r2")] == [BackendError.code] * 2


def test_a_request_that_may_have_killed_two_devices_meets_no_third(
    desk: Desk, device: Device, another: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_device(device, monkeypatch, BackendError("the device is gone"))
    desk.replies.embed(desk.message(request("r1", "one", deaths=1)))
    assert desk.passed_on() == []
    assert desk.error("r1").code == BackendError.code


def lost_after_a_batch(desk: Desk, device: Device) -> None:
    """The device fails for good in its second batch."""
    source = device.model.backend

    def dead(batch: object) -> None:
        raise BackendError("the device is gone")

    def die() -> None:
        device.on_batch = lambda: None
        source.forward = dead  # type: ignore[method-assign, assignment]

    device.on_batch = die


def test_a_request_that_was_answered_before_the_device_was_lost_is_not_passed_on(
    desk: Desk, device: Device, another: None
) -> None:
    lost_after_a_batch(desk, device)
    desk.replies.embed(desk.message(request("r1", "short"), request("r2", *many(6, tokens=20))))
    assert desk.answer("r1").computed == [0]
    assert [[each.id for each in message.requests] for _, message in desk.passed_on()] == [["r2"]]


def test_a_request_that_nobody_waits_for_is_not_passed_on(
    desk: Desk, device: Device, another: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose(*_: object, **__: object) -> None:
        abandon(desk.fleet.redis, ["r1"])
        desk.held.look()
        raise BackendError("the device is gone")

    monkeypatch.setattr(device.embedder, "compute", lose)
    desk.replies.embed(desk.message(request("r1", "one"), request("r2", "two")))
    assert [[each.id for each in message.requests] for _, message in desk.passed_on()] == [["r2"]]
    assert abandoned(desk.fleet.redis, ["r1"]) == {"r1"}


def test_an_unforeseen_error_is_an_answer_and_no_time_out(
    desk: Desk, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_device(device, monkeypatch, ZeroDivisionError("by zero"))
    desk.replies.embed(desk.message(request("r1", "one"), request("r2", "two")))
    for name in ("r1", "r2"):
        assert (desk.error(name).code, desk.error(name).message) == ("internal_error", "ZeroDivisionError: by zero")
    assert desk.lost == []
    assert desk.held.texts == 0


# A Redis that is emptied or away


def test_an_emptied_redis_between_taking_and_answering_costs_nothing(desk: Desk, fleet: Fleet, device: Device) -> None:

    def empty_redis() -> None:
        fleet.redis.flushall()

    device.on_batch = empty_redis
    desk.replies.embed(desk.message(request("r1", "one")))
    assert desk.answer("r1").computed == [0]


def test_an_answer_that_cannot_be_delivered_does_not_hurt_the_worker(desk: Desk, fleet: Fleet) -> None:
    fleet.server.connected = False
    desk.replies.embed(desk.message(request("r1", "one")))
    fleet.server.connected = True
    assert desk.held.texts == 0
    desk.replies.embed(desk.message(request("r2", "two")))
    assert desk.answer("r2").computed == [0]


def test_a_request_whose_answer_was_not_delivered_does_not_count_as_being_worked_on(
    desk: Desk, fleet: Fleet, device: Device
) -> None:
    """The sender would wait for this worker, which lives and has nothing to do, until the request times out."""

    def lose_redis() -> None:
        fleet.server.connected = False

    device.on_batch = lose_redis
    desk.replies.embed(desk.message(request("r1", "one")))
    fleet.server.connected = True
    desk.held.look()
    assert desk.state("r1").worker is None


def test_requests_that_may_kill_a_worker_are_taken_one_by_one(
    desk: Desk, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that wait for their turn must not count as killed together with the one on the device."""
    taken: list[list[str | None]] = []
    submit = device.engine.submit

    def look(*args: Any, **options: Any) -> Any:
        taken.append([desk.state(name).worker for name in ("new", "r1", "r2")])
        return submit(*args, **options)

    monkeypatch.setattr(device.engine, "submit", look)
    suspects = [request(name, f"text of {name}", deaths=1) for name in ("r1", "r2")]
    desk.replies.embed(desk.message(request("new", "new text"), *suspects))
    assert taken == [[HERE, None, None], [None, HERE, None], [None, None, HERE]]
