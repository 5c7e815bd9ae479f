"""Requests on their way to the workers and back: small ones by message, large ones as a job."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from kombu.exceptions import OperationalError

from semel.cache.keys import input_keys
from semel.errors import ModelLoadError, OverloadedError, StorageFullError, TimedOutError, UnavailableError
from semel.settings import Settings
from semel.tasks.jobs.counts import JobCounts
from semel.tasks.queue import sender as sender_module
from semel.tasks.queue.backlog import Backlog
from semel.tasks.queue.dispatch import Dispatcher
from semel.tasks.queue.message import Answer, Request
from semel.tasks.queue.names import EMBED_CHUNK, EMBED_TEXTS, READ_TEXTS
from semel.tasks.queue.router import Router
from semel.tasks.queue.sender import QueueSender
from semel.values.job import JobStatus
from semel.values.text import Input, ItemError, Lane, Outcome
from tests.support.fleet import SPACE, Clock, Fleet
from tests.support.service import Service, service


def missing_in(space_fingerprint: bytes, texts: list[str]) -> dict[bytes, Input]:
    return dict(zip(input_keys(space_fingerprint, texts), texts, strict=True))


# With a worker in this process


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A worker that answers at once; at most 200 characters travel in a message, and 4 texts in a chunk."""
    with service(tmp_path_factory.mktemp("sender"), inline_bytes=200, chunk_texts=4) as made:
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
    return {text: done.outcomes[key] for key, text in missing.items()}


def test_a_small_request_is_one_message_in_the_interactive_lane(
    running: Service, messages: list[tuple[str, list[Any], str]]
) -> None:
    assert set(compute(running, ["one", "two"]).values()) == {Outcome.COMPUTED}
    ((task, (message,), queue),) = messages
    assert (task, queue) == (EMBED_TEXTS, "interactive.cpu")
    assert Request.from_message(message).texts == ["one", "two"]


def test_texts_that_another_caller_has_computed_meanwhile_are_reported_as_such(running: Service) -> None:
    assert compute(running, ["shared"]) == {"shared": Outcome.COMPUTED}
    assert compute(running, ["shared", "fresh"]) == {"shared": Outcome.COALESCED, "fresh": Outcome.COMPUTED}


def test_a_bad_text_fails_alone_in_a_message(running: Service) -> None:
    outcomes = compute(running, ["fine", "poison", "fine as well"])
    assert list(outcomes.values()) == [Outcome.COMPUTED, Outcome.FAILED, Outcome.COMPUTED]


def test_a_large_request_is_a_job_in_the_interactive_lane(
    running: Service, messages: list[tuple[str, list[Any], str]]
) -> None:
    texts = [f"{'long ' * 5}{i}" for i in range(10)]
    assert set(compute(running, texts).values()) == {Outcome.COMPUTED}
    assert {(task, queue) for task, _, queue in messages} == {(EMBED_CHUNK, "interactive.cpu")}
    job_id = messages[0][1][0]
    assert [position for _, (_, position), _ in messages] == [0, 1, 2], "10 texts in chunks of 4"
    job = running.services.stores.jobs.get(job_id)
    assert (job.status, job.counts.computed, job.metadata) == (JobStatus.COMPLETED, 10, {"origin": "request"})


def test_a_bad_text_fails_alone_in_a_job(running: Service) -> None:
    texts = [f"{'other ' * 5}{i}" for i in range(8)]
    texts[5] = "more poison"
    outcomes = compute(running, texts)
    assert [text for text, outcome in outcomes.items() if outcome is Outcome.FAILED] == ["more poison"]


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


@pytest.mark.parametrize(("special", "expected"), [(True, ["[CLS]", "a", "b"]), (False, ["a", "b"])])
def test_tokens_are_spelled_with_or_without_special_ones(running: Service, special: bool, expected: list[str]) -> None:
    space = running.services.stores.catalog.space("fake")
    (spelled,) = running.services.fleet.sender.spell(space, ["a b"], special=special)
    assert [token["text"] for token in spelled] == expected


# With a doorbell that the test rings, and a clock that it moves


class ScriptedDoorbell:
    """Stands in for the doorbell: each wait takes its whole time, unless there is an answer."""

    name = "bell"

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.waiting: set[str] = set()
        self.answers: list[Answer] = []
        self.error: Exception | None = None
        self.on_wait: Callable[[], None] = lambda: None

    def expect(self, request_id: str) -> None:
        self.waiting.add(request_id)

    def forget(self, request_id: str) -> None:
        self.waiting.remove(request_id)

    def wait(self, request_id: str, *, timeout_s: float) -> Answer | None:
        assert request_id in self.waiting, "a request must be expected before it is sent"
        if self.error is not None:
            raise self.error
        if self.answers:
            return self.answers.pop(0)
        self._clock.now += timeout_s
        self.on_wait()
        return None


@pytest.fixture
def doorbell(clock: Clock) -> ScriptedDoorbell:
    return ScriptedDoorbell(clock)


@pytest.fixture
def sender(
    fleet: Fleet, doorbell: ScriptedDoorbell, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> QueueSender:
    """A sender that waits up to 60 s; one worker on the CPU lives as long as the test lets it."""
    monkeypatch.setattr(sender_module, "time", clock)
    fleet.join("cpu", texts_per_s=1.0)
    bounds = {Lane.INTERACTIVE: 2.0, Lane.BULK: 100.0}
    return QueueSender(
        fleet.outbox,  # type: ignore[arg-type]  # in the place of Celery
        doorbell,  # type: ignore[arg-type]
        Router(fleet.roster, fleet.catalog),
        fleet.jobs,
        Dispatcher(fleet.jobs, fleet.outbox, fleet.roster),  # type: ignore[arg-type]
        fleet.store,
        Backlog(JobCounts(fleet.db), fleet.roster, fleet.redis, max_s=bounds),
        Settings(home=tmp_path, request_timeout_s=60.0, inline_bytes=100),
    )


SMALL = missing_in(SPACE.fingerprint, ["one", "two", "three"])
LARGE = missing_in(SPACE.fingerprint, ["long " * 30])


def test_the_outcomes_of_an_answer_belong_to_the_keys_in_their_order(
    sender: QueueSender, doorbell: ScriptedDoorbell
) -> None:
    error = ItemError("invalid_vector", "NaN")
    doorbell.answers = [Answer(computed=[2], coalesced=[0], errors={1: error}, seconds=0.5)]
    done = sender.compute(SPACE, SMALL)
    assert [done.outcomes[key] for key in SMALL] == [Outcome.COALESCED, Outcome.FAILED, Outcome.COMPUTED]
    assert done.errors == {list(SMALL)[1]: error}
    assert done.inference_s == 0.5


def test_an_answer_that_does_not_come_is_asked_for_again_after_ten_seconds(
    sender: QueueSender, doorbell: ScriptedDoorbell, fleet: Fleet, clock: Clock
) -> None:
    started = clock.now

    def answer_the_third() -> None:
        if len(fleet.outbox.sent) == 3:
            doorbell.answers = [Answer(computed=[0, 1, 2])]

    doorbell.on_wait = answer_the_third
    sender.compute(SPACE, SMALL)
    assert len(fleet.outbox.sent) == 3
    assert 20.0 <= clock.now - started <= 22.0
    assert len({message["id"] for _, (message,), _ in fleet.outbox.sent}) == 1, "the same request, sent again"


def test_a_request_without_an_answer_ends_in_time(
    sender: QueueSender, doorbell: ScriptedDoorbell, clock: Clock
) -> None:
    with pytest.raises(TimedOutError, match="no worker answered within 60 s"):
        sender.compute(SPACE, SMALL)
    assert clock.now == pytest.approx(1060.0)
    assert doorbell.waiting == set(), "nothing is left behind"


def test_a_request_goes_to_another_pool_as_soon_as_its_own_is_gone(
    sender: QueueSender, doorbell: ScriptedDoorbell, fleet: Fleet, clock: Clock
) -> None:
    started = clock.now

    def lose_the_cpu() -> None:
        fleet.roster.leave("cpu@host")
        fleet.join("mps")
        doorbell.on_wait = lambda: setattr(doorbell, "answers", [Answer(computed=[0, 1, 2])])

    doorbell.on_wait = lose_the_cpu
    sender.compute(SPACE, SMALL)
    assert fleet.outbox.queues == ["interactive.cpu", "interactive.mps"]
    assert clock.now - started < 10.0


def test_a_request_is_refused_when_no_worker_serves_its_space(sender: QueueSender, fleet: Fleet) -> None:
    fleet.catalog.publish([SPACE], device="cpu")
    fleet.roster.leave("cpu@host")
    fleet.roster.live()
    with pytest.raises(UnavailableError, match="no live worker serves 'm'"):
        sender.compute(SPACE, SMALL)
    assert fleet.outbox.sent == []


def test_a_request_is_refused_while_too_much_waits(sender: QueueSender, fleet: Fleet) -> None:
    fleet.redis.lpush("interactive.cpu", *["message"] * 3)  # at one text per second
    with pytest.raises(OverloadedError):
        sender.compute(SPACE, SMALL)
    assert fleet.outbox.sent == []


def test_an_error_of_the_worker_is_raised_as_its_own_class(sender: QueueSender, doorbell: ScriptedDoorbell) -> None:
    doorbell.answers = [Answer(error=ItemError(ModelLoadError.code, "no files"))]
    with pytest.raises(ModelLoadError, match="no files"):
        sender.compute(SPACE, SMALL)
    assert doorbell.waiting == set()


@pytest.mark.parametrize("error", [redis.ConnectionError("refused"), OperationalError("refused")])
def test_a_redis_that_goes_away_ends_the_request_with_one_kind_of_error(
    sender: QueueSender, doorbell: ScriptedDoorbell, fleet: Fleet, error: Exception
) -> None:
    fleet.outbox.error = doorbell.error = error
    with pytest.raises(UnavailableError, match="Redis"):
        sender.compute(SPACE, SMALL)
    assert doorbell.waiting == set()


def test_a_large_request_that_is_not_done_in_time_is_cancelled(sender: QueueSender, fleet: Fleet, clock: Clock) -> None:
    started = clock.now
    with pytest.raises(TimedOutError, match="not done within 60 s"):
        sender.compute(SPACE, LARGE)
    assert 60.0 <= clock.now - started < 61.0
    (job,) = fleet.jobs.list_jobs(limit=10)
    assert job.status is JobStatus.CANCELLED


def test_a_large_request_waits_with_growing_pauses_until_its_chunks_are_done(
    sender: QueueSender, fleet: Fleet, clock: Clock
) -> None:
    def finish_after_five_seconds() -> None:
        (job,) = fleet.jobs.list_jobs(limit=10)
        if clock.now > 1005.0 and (work := fleet.jobs.lease(job.id, 0, owner="w", ttl_s=60)):
            fleet.jobs.finish(work, [Outcome.COMPUTED], {}, truncated=0, tokens=30)

    clock.on_sleep = finish_after_five_seconds
    done = sender.compute(SPACE, LARGE)
    assert list(done.outcomes.values()) == [Outcome.COMPUTED]
    assert clock.slept[0] < 0.05
    assert clock.slept[-1] == 0.25
    assert clock.slept == sorted(clock.slept)


def test_a_job_that_fails_raises_its_error(sender: QueueSender, fleet: Fleet) -> None:
    def fail(_task: str, args: list[Any]) -> None:
        fleet.jobs.fail(args[0], ItemError(StorageFullError.code, "the disk is full"))

    fleet.outbox.on_send = fail
    with pytest.raises(StorageFullError, match="the disk is full"):
        sender.compute(SPACE, LARGE)
