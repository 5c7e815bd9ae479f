"""Whose turn it is: lanes, models, suspects, and texts that an interactive request waits for too."""

import pytest

from semel.backends.base import Tokens
from semel.backends.batching import Budgets, Item
from semel.backends.fake import FakeBackend, FakeOptions
from semel.backends.submission import Submission
from semel.backends.waiting import Waiting
from semel.values.text import Lane


@pytest.fixture
def backend() -> FakeBackend:
    return FakeBackend("m", FakeOptions(), device="cpu")


@pytest.fixture
def waiting(backend: FakeBackend) -> Waiting:
    budgets = Budgets(20)  # two texts of ten tokens
    budgets.add(backend)
    return Waiting(budgets)


def items(owner: Submission, count: int) -> list[Item]:
    return [Item(Tokens([7] * 10, truncated=False), owner, i) for i in range(count)]


def places(waiting: Waiting) -> list[tuple[Submission, int]]:
    return [(item.owner, item.index) for item in waiting.next_batch()[1]]


def test_interactive_texts_go_first(waiting: Waiting, backend: FakeBackend) -> None:
    bulk, asked = Submission(2), Submission(1)
    waiting.add(Lane.BULK, backend, bulk, items(bulk, 2))
    waiting.add(Lane.INTERACTIVE, backend, asked, items(asked, 1))
    assert places(waiting) == [(asked, 0)]
    assert places(waiting) == [(bulk, 0), (bulk, 1)]
    assert not waiting


def test_a_text_in_bulk_that_somebody_waits_for_goes_before_the_others(waiting: Waiting, backend: FakeBackend) -> None:
    bulk = Submission(9)
    waiting.add(Lane.BULK, backend, bulk, items(bulk, 9))
    waiting.hurry(backend, [(bulk, 8), (bulk, 3), (bulk, 99)])
    assert places(waiting) == [(bulk, 3), (bulk, 8)]
    left = [place for _ in range(4) for place in places(waiting)]
    assert [index for _, index in left] == [0, 1, 2, 4, 5, 6, 7]
    assert not waiting


def test_hurrying_what_does_not_wait_changes_nothing(waiting: Waiting, backend: FakeBackend) -> None:
    bulk = Submission(2)
    waiting.hurry(backend, [(bulk, 0)])
    assert not waiting
    waiting.add(Lane.BULK, backend, bulk, items(bulk, 2))
    waiting.hurry(backend, [(Submission(2), 0)])
    waiting.hurry(backend, [(bulk, 0), (bulk, 1)])
    assert places(waiting) == [(bulk, 0), (bulk, 1)]
    assert not waiting


def test_a_suspect_goes_before_everybody_and_alone(waiting: Waiting, backend: FakeBackend) -> None:
    asked, suspect = Submission(1), Submission(1, alone=True)
    waiting.add(Lane.INTERACTIVE, backend, asked, items(asked, 1))
    waiting.add(Lane.BULK, backend, suspect, items(suspect, 1))
    assert places(waiting) == [(suspect, 0)]
    assert places(waiting) == [(asked, 0)]


def test_the_texts_of_one_model_can_be_dropped(waiting: Waiting, backend: FakeBackend) -> None:
    other, one, two = FakeBackend("other", FakeOptions(), device="cpu"), Submission(1), Submission(1)
    waiting.add(Lane.BULK, backend, one, items(one, 1))
    waiting.add(Lane.BULK, other, two, items(two, 1))
    assert waiting.drain(backend) == {one}
    assert waiting.drain() == {two}
    assert not waiting
