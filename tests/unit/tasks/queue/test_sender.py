"""Missing texts on their way to the workers, and what their answers mean for the keys."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from semel.cache.keys import input_keys
from semel.errors import ModelLoadError, OverloadedError, TimedOutError, UnavailableError
from semel.tasks.jobs.counts import JobCounts
from semel.tasks.queue.backlog import Backlog
from semel.tasks.queue.message import Answer, RequestMessage, Row
from semel.tasks.queue.names import EMBED_TEXTS, READ_TEXTS
from semel.tasks.queue.outbox import Outbox
from semel.tasks.queue.router import Router
from semel.tasks.queue.sender import QueueSender
from semel.values.text import Input, ItemError, Lane, Outcome
from tests.support.fleet import SPACE, Fleet
from tests.support.service import Service, service


def missing_in(space_fingerprint: bytes, texts: list[str]) -> dict[bytes, Input]:
    return dict(zip(input_keys(space_fingerprint, texts), texts, strict=True))


# With a worker in this process


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A worker that answers at once; at most 200 characters travel in a message."""
    with service(tmp_path_factory.mktemp("sender"), inline_bytes=200) as made:
        yield made


@pytest.fixture
def messages(running: Service) -> list[tuple[str, list[Any], str]]:
    """The messages of one test."""
    running.worker.sent.clear()
    return running.worker.sent


def compute(running: Service, texts: list[str]) -> dict[str, Outcome]:
    space = running.services.stores.catalog.space("fake")
    missing = missing_in(space.fingerprint, texts)
    done = running.services.fleet.sender.compute(space, missing)
    assert running.services.stores.vectors.lookup(list(missing)).present.tolist() == [
        done.outcomes[key] is not Outcome.FAILED for key in missing
    ], "what is reported as computed is in the cache"
    assert done.errors.keys() == {key for key in missing if done.outcomes[key] is Outcome.FAILED}
    assert running.services.fleet.outbox.waiting() == {}
    return {str(text): done.outcomes[key] for key, text in missing.items()}


def test_a_small_request_is_one_message_in_the_interactive_lane(
    running: Service, messages: list[tuple[str, list[Any], str]]
) -> None:
    assert set(compute(running, ["one", "two"]).values()) == {Outcome.COMPUTED}
    ((task, (message,), queue),) = messages
    assert (task, queue) == (EMBED_TEXTS, "interactive.cpu")
    assert [request.texts for request in RequestMessage.from_message(message).requests] == [["one", "two"]]


def test_texts_that_another_caller_has_computed_meanwhile_are_reported_as_such(running: Service) -> None:
    assert compute(running, ["shared"]) == {"shared": Outcome.COMPUTED}
    assert compute(running, ["shared", "fresh"]) == {"shared": Outcome.COALESCED, "fresh": Outcome.COMPUTED}


def test_a_bad_text_fails_alone(running: Service) -> None:
    outcomes = compute(running, ["fine", "poison", "fine as well"])
    assert list(outcomes.values()) == [Outcome.COMPUTED, Outcome.FAILED, Outcome.COMPUTED]


def test_a_large_request_travels_in_several_messages_and_leaves_no_job_behind(
    running: Service, messages: list[tuple[str, list[Any], str]]
) -> None:
    texts = [f"{'long ' * 5}{i}" for i in range(30)]
    texts[17] = "more poison"
    outcomes = compute(running, texts)
    assert [text for text, outcome in outcomes.items() if outcome is Outcome.FAILED] == ["more poison"]
    assert {(task, queue) for task, _, queue in messages} == {(EMBED_TEXTS, "interactive.cpu")}
    assert len(messages) > 3
    assert running.services.stores.jobs.list_jobs(limit=10) == []


def test_the_time_of_the_worker_is_known_for_one_message_only(running: Service) -> None:
    space, sender = running.services.stores.catalog.space("fake"), running.services.fleet.sender
    one = sender.compute(space, missing_in(space.fingerprint, ["timed"]))
    assert one.inference_s is not None
    assert one.inference_s > 0
    many = sender.compute(space, missing_in(space.fingerprint, [f"{'timed ' * 20}{i}" for i in range(4)]))
    assert many.inference_s is None, "the times of messages that several workers compute overlap"


def test_tokens_are_counted_without_computing(running: Service, messages: list[tuple[str, list[Any], str]]) -> None:
    space, computed = running.services.stores.catalog.space("fake"), running.worker.engine.stats.texts
    counts = running.services.fleet.sender.count_tokens(space, ["a b c", "w " * 30])
    assert counts == [(3, False), (20, True)]
    assert [(task, queue) for task, _, queue in messages] == [(READ_TEXTS, "interactive.cpu")]
    assert running.worker.engine.stats.texts == computed


def test_long_lists_are_read_in_several_messages_and_come_back_in_order(
    running: Service, messages: list[tuple[str, list[Any], str]]
) -> None:
    space = running.services.stores.catalog.space("fake")
    texts = [" ".join(["word"] * (i % 9 + 1)) for i in range(30)]
    counts = running.services.fleet.sender.count_tokens(space, texts)
    assert [tokens for tokens, _ in counts] == [i % 9 + 1 for i in range(30)]
    assert len(messages) > 3


def test_no_text_needs_no_message(running: Service, messages: list[tuple[str, list[Any], str]]) -> None:
    space = running.services.stores.catalog.space("fake")
    assert running.services.fleet.sender.count_tokens(space, []) == []
    assert messages == []


@pytest.mark.parametrize(("special", "expected"), [(True, ["[CLS]", "a", "b"]), (False, ["a", "b"])])
def test_tokens_are_spelled_with_or_without_special_ones(running: Service, special: bool, expected: list[str]) -> None:
    space = running.services.stores.catalog.space("fake")
    (spelled,) = running.services.fleet.sender.spell(space, ["a b"], special=special)
    assert [token["text"] for token in spelled] == expected


# With answers of the test


class Desk:
    """A sender, and the answers that its requests get.

    Attributes:
        answer: of every request that is sent; None for no answer.
    """

    def __init__(self, fleet: Fleet, *, inline_bytes: int = 100) -> None:
        self.answer: Answer | None = None
        router = Router(fleet.roster, fleet.catalog)
        self.outbox = Outbox(fleet.outbox, fleet.redis, router, inline_bytes=inline_bytes)
        bounds = {Lane.INTERACTIVE: 5.0, Lane.BULK: 100.0}
        requests = SimpleNamespace(texts=self.outbox.texts, devices=self.outbox.waiting)
        self.sender = QueueSender(
            self.outbox,
            router,
            Backlog(JobCounts(fleet.db), fleet.roster, fleet.redis, requests=requests, max_s=bounds),
            inline_bytes=inline_bytes,
            timeout_s=60.0,
        )
        fleet.outbox.on_send = self._reply

    def _reply(self, _task: str, args: list[Any]) -> None:
        for request in args[0]["requests"]:
            if self.answer is not None:
                self.outbox.answered(request["id"], self.answer)


@pytest.fixture
def desk(fleet: Fleet) -> Iterator[Desk]:
    """One worker, which computes one text per second; up to five may wait."""
    fleet.catalog.publish([SPACE], device="cpu")
    fleet.join("cpu", texts_per_s=1.0)
    made = Desk(fleet)
    yield made
    made.outbox.close()


SMALL = missing_in(SPACE.fingerprint, ["one", "two", "three"])
LARGE = missing_in(SPACE.fingerprint, ["long " * 15, "longer " * 15, "longest " * 15])


def test_the_outcomes_of_an_answer_belong_to_the_keys_in_their_order(desk: Desk) -> None:
    error = ItemError("invalid_vector", "NaN")
    desk.answer = Answer(computed=[2], coalesced=[0], errors={1: error}, seconds=0.5)
    done = desk.sender.compute(SPACE, SMALL)
    assert [done.outcomes[key] for key in SMALL] == [Outcome.COALESCED, Outcome.FAILED, Outcome.COMPUTED]
    assert done.errors == {list(SMALL)[1]: error}
    assert done.inference_s == 0.5


def test_a_row_that_came_with_the_answer_belongs_to_its_key(desk: Desk) -> None:
    vector = np.array([0.5, -0.5], np.float32)
    desk.answer = Answer(computed=[0, 1, 2], rows={1: Row(vector.tobytes(), 4, True)})
    done = desk.sender.compute(SPACE, SMALL)
    key = list(SMALL)[1]
    assert list(done.vectors) == [key]
    assert done.vectors[key].tobytes() == vector.tobytes()
    assert (done.tokens[key], done.truncated[key]) == (4, True)


def test_a_long_text_travels_alone_and_its_outcome_belongs_to_it(desk: Desk, fleet: Fleet) -> None:
    sent = desk.sender.begin(SPACE, LARGE)
    assert [keys for keys, _ in sent.parts] == [[key] for key in LARGE]
    error = ItemError("invalid_vector", "NaN")
    for (_, pending), answer in zip(sent.parts, [Answer([0]), Answer(errors={0: error}), Answer([], [0])], strict=True):
        desk.outbox.answered(pending.request.id, answer)
    done = sent.result()
    assert [done.outcomes[key] for key in LARGE] == [Outcome.COMPUTED, Outcome.FAILED, Outcome.COALESCED]
    assert done.errors == {list(LARGE)[1]: error}


def test_a_request_has_256_texts_at_most(fleet: Fleet) -> None:
    fleet.join("cpu")
    desk = Desk(fleet, inline_bytes=10_000)
    sent = desk.sender.begin(SPACE, missing_in(SPACE.fingerprint, [f"{i}" for i in range(600)]))
    assert [len(keys) for keys, _ in sent.parts] == [256, 256, 88]
    assert [len(pending.request.texts) for _, pending in sent.parts] == [256, 256, 88]
    desk.outbox.close()


def test_beginning_does_not_wait_for_the_answer(desk: Desk) -> None:
    sent = desk.sender.begin(SPACE, SMALL)
    assert [answer.done() for answer in sent.answers] == [False]
    desk.outbox.answered(sent.parts[0][1].request.id, Answer(computed=[0, 1, 2]))
    assert [answer.done() for answer in sent.answers] == [True]
    assert set(sent.result().outcomes) == set(SMALL)


def test_a_request_without_an_answer_in_time_raises_that(desk: Desk) -> None:
    sent = desk.sender.begin(SPACE, SMALL)
    desk.outbox.fail(desk.outbox.pending(), TimedOutError("late"))
    with pytest.raises(TimedOutError, match="late"):
        sent.result()


def test_a_part_that_fails_fails_the_whole(desk: Desk) -> None:
    sent = desk.sender.begin(SPACE, LARGE)
    (_, first), (_, second), (_, third) = sent.parts
    desk.outbox.answered(first.request.id, Answer(computed=[0]))
    desk.outbox.answered(second.request.id, Answer(error=ItemError(ModelLoadError.code, "no files")))
    desk.outbox.answered(third.request.id, Answer(computed=[0]))
    with pytest.raises(ModelLoadError, match="no files"):
        sent.result()


def test_dropped_texts_wait_no_longer(desk: Desk) -> None:
    sent = desk.sender.begin(SPACE, LARGE)
    assert desk.outbox.texts("cpu") == 3
    desk.sender.drop(sent)
    assert desk.outbox.texts("cpu") == 0
    assert desk.outbox.pending() == []


def test_a_request_is_refused_when_no_worker_serves_its_space(desk: Desk, fleet: Fleet) -> None:
    fleet.leave(fleet.roster.live()[0])
    with pytest.raises(UnavailableError, match="no live worker serves 'm'"):
        desk.sender.compute(SPACE, SMALL)
    assert fleet.outbox.sent == []


def test_a_request_is_refused_while_too_much_waits(desk: Desk, fleet: Fleet) -> None:
    desk.sender.begin(SPACE, SMALL)
    desk.sender.begin(SPACE, SMALL)
    waits = desk.outbox.texts("cpu")
    with pytest.raises(OverloadedError, match="about 6 s of work wait on cpu"):
        desk.sender.compute(SPACE, SMALL)
    assert desk.outbox.texts("cpu") == waits


def test_an_error_of_the_worker_is_raised_as_its_own_class(desk: Desk) -> None:
    desk.answer = Answer(error=ItemError(ModelLoadError.code, "no files"))
    with pytest.raises(ModelLoadError, match="no files"):
        desk.sender.compute(SPACE, SMALL)
    with pytest.raises(ModelLoadError, match="no files"):
        desk.sender.count_tokens(SPACE, ["one"])
    assert desk.outbox.waiting() == {}
