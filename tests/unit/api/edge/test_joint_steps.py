"""The steps of many requests, taken together: one look-up for all, and each has its own outcome."""

from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from semel.api.edge.joint_steps import JointSteps, Result, Walk
from semel.errors import BackendError, OverloadedError, UnavailableError
from semel.steps import LookUp, Missing, Steps
from semel.tasks.queue.sender import Sent
from semel.values.text import Lane
from semel.values.vectors import Found
from tests.support.values import space

SPACE = space()


@dataclass(eq=False)
class Cache:
    """Has every key whose first byte is even; `tokens` is the first byte. Stands in for the vector store."""

    error: Exception | None = None
    reads: list[tuple[Sequence[bytes], int]] = field(default_factory=list)

    def get_many(self, keys: Sequence[bytes], *, dim: int) -> Found:
        self.reads.append((keys, dim))
        if self.error is not None:
            raise self.error
        first = np.array([key[0] for key in keys], np.int32)
        return Found(first % 2 == 0, first, np.zeros(len(keys), np.bool_), np.zeros((len(keys), dim), np.float32))


@dataclass
class Sender:
    """Sends nothing. Stands in for `QueueSender`."""

    refusal: BackendError | OverloadedError | None = None
    sent: list[list[bytes]] = field(default_factory=list)

    def begin(self, _space: Any, texts: dict[bytes, Any], *, lane: Lane) -> Sent:
        assert lane is Lane.INTERACTIVE
        if self.refusal is not None:
            raise self.refusal
        self.sent.append(list(texts))
        return Sent([])


def look_up(cache: Cache, *keys: bytes, dim: int = 2) -> Steps[list[int]]:
    """The tokens of the keys; absent ones are sent first."""
    found: Found = yield LookUp(cache, keys, dim)
    absent = [key for key, present in zip(keys, found.present, strict=True) if not present]
    if absent:
        yield Missing(SPACE, dict.fromkeys(absent, "text"), Lane.INTERACTIVE)
    return found.tokens.tolist()


@pytest.fixture
def sender() -> Sender:
    return Sender()


@pytest.fixture
def joint(sender: Sender) -> JointSteps:
    return JointSteps(sender)  # type: ignore[arg-type]


def test_requests_share_one_look_up_and_each_receives_its_own_rows(joint: JointSteps) -> None:
    cache = Cache()
    ends = joint.take([Walk(look_up(cache, b"\2", b"\4")), Walk(look_up(cache)), Walk(look_up(cache, b"\6"))])
    assert ends == [Result([2, 4]), Result([]), Result([6])]
    assert cache.reads == [([b"\2", b"\4", b"\6"], 2)]


def test_caches_and_widths_are_read_apart(joint: JointSteps) -> None:
    one, two = Cache(), Cache()
    walks = [Walk(look_up(one, b"\2")), Walk(look_up(two, b"\4")), Walk(look_up(one, b"\6", dim=3))]
    assert joint.take(walks) == [Result([2]), Result([4]), Result([6])]
    assert (one.reads, two.reads) == ([([b"\2"], 2), ([b"\6"], 3)], [([b"\4"], 2)])


def test_missing_texts_are_sent_and_the_steps_go_on_with_their_answers(joint: JointSteps, sender: Sender) -> None:
    cache = Cache()
    walks = [Walk(look_up(cache, b"\1", b"\2")), Walk(look_up(cache, b"\4"))]
    waits, hit = joint.take(walks)
    assert (isinstance(waits, Sent), hit) == (True, Result([4]))
    assert sender.sent == [[b"\1"]]
    walks[0].sent = Sent([])
    assert joint.take(walks[:1]) == [Result([1, 2])]


def test_a_request_fails_alone(joint: JointSteps) -> None:
    def fails() -> Steps[None]:
        yield LookUp(cache, [b"\2"], 2)
        raise ValueError("mine")

    cache = Cache()
    failed, fine = joint.take([Walk[Any](fails()), Walk[Any](look_up(cache, b"\4"))])
    assert (repr(failed), fine) == ("ValueError('mine')", Result([4]))


@pytest.mark.parametrize("error", [UnavailableError("gone"), ValueError("a bug")])
def test_a_look_up_that_fails_fails_each_request_once(joint: JointSteps, error: Exception) -> None:
    begun = []

    def counts() -> Steps[None]:
        begun.append(1)
        yield LookUp(cache, [b"\2"], 2)

    cache = Cache(error)
    assert joint.take([Walk(counts()), Walk(counts())]) == [error, error]
    assert len(begun) == 2


def test_steps_may_go_on_after_a_refusal(joint: JointSteps, sender: Sender) -> None:
    def patient() -> Steps[str]:
        try:
            yield Missing(SPACE, {b"\1": "text"}, Lane.INTERACTIVE)
        except BackendError as error:
            found: Found = yield LookUp(cache, [b"\2"], 2)
            return f"{error}, {found.tokens.tolist()}"
        return "sent"

    cache = Cache()
    sender.refusal = BackendError("no device")
    assert joint.take([Walk(patient())]) == [Result("no device, [2]")]
    sender.refusal = OverloadedError("full", retry_after_s=1.0)
    assert joint.take([Walk(patient())]) == [sender.refusal]


def test_the_steps_run_in_the_context_of_their_request(joint: JointSteps) -> None:
    name = ContextVar[str]("name")

    def named() -> Steps[str]:
        yield LookUp(cache, [b"\2"], 2)
        return name.get()

    cache, walks = Cache(), []
    for each in ("a", "b"):
        token = name.set(each)
        walks.append(Walk(named()))
        name.reset(token)
    futures = [joint.submit(walk) for walk in walks]
    assert [future.result(5) for future in futures] == [Result("a"), Result("b")]
    joint.close()
