"""Natural batching: alone nobody waits, under load calls go together."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future

import pytest

from semel.together import Together

SOON_S = 5.0
"""More than any call here takes; a test that waits this long has failed."""


class Doubler:
    """Doubles numbers, and records who came together.

    Attributes:
        calls: the items of each call.
        gate: a call waits while this is not set.
        called: set when a call has begun.
        spoilt: an item for which the whole call raises.
        refused: an item whose result is an exception.
        answer: makes the results of a call, if set.
    """

    def __init__(self) -> None:
        self.calls: list[list[int]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.called = threading.Event()
        self.spoilt: int | None = None
        self.refused: int | None = None
        self.answer: Callable[[Sequence[int]], Sequence[int | Exception]] | None = None

    def run(self, items: Sequence[int]) -> Sequence[int | Exception]:
        self.calls.append(list(items))
        self.called.set()
        assert self.gate.wait(SOON_S)
        if self.spoilt in items:
            raise ValueError(f"{self.spoilt} spoils the call")
        if self.answer is not None:
            return self.answer(items)
        return [KeyError(item) if item == self.refused else 2 * item for item in items]


@pytest.fixture
def doubler() -> Doubler:
    return Doubler()


@pytest.fixture
def together(doubler: Doubler) -> Iterator[Together[int, int]]:
    made = Together("doubler", doubler.run, most=4)
    yield made
    doubler.gate.set()
    made.close()


def while_one_runs(together: Together[int, int], doubler: Doubler, items: Sequence[int]) -> "list[Future[int]]":
    """Submit these while a call with 0 runs."""
    doubler.gate.clear()
    first = together.submit(0)
    assert doubler.called.wait(SOON_S)
    futures = [together.submit(item) for item in items]
    doubler.gate.set()
    assert first.result(SOON_S) == 0
    return futures


def test_an_item_that_comes_alone_waits_for_nobody(together: Together[int, int], doubler: Doubler) -> None:
    for item in (1, 2, 3):
        assert together.submit(item).result(SOON_S) == 2 * item
    assert doubler.calls == [[1], [2], [3]]


def test_items_that_come_while_a_call_runs_share_the_next_one(together: Together[int, int], doubler: Doubler) -> None:
    futures = while_one_runs(together, doubler, [1, 2, 3])
    assert [future.result(SOON_S) for future in futures] == [2, 4, 6]
    assert doubler.calls == [[0], [1, 2, 3]]


def test_a_call_has_a_bound(together: Together[int, int], doubler: Doubler) -> None:
    futures = while_one_runs(together, doubler, range(1, 10))
    assert [future.result(SOON_S) for future in futures] == [2 * item for item in range(1, 10)]
    assert doubler.calls == [[0], [1, 2, 3, 4], [5, 6, 7, 8], [9]]


def test_an_item_that_spoils_its_call_fails_alone(together: Together[int, int], doubler: Doubler) -> None:
    doubler.spoilt = 2
    one, two, three = while_one_runs(together, doubler, [1, 2, 3])
    assert (one.result(SOON_S), three.result(SOON_S)) == (2, 6)
    with pytest.raises(ValueError, match="2 spoils the call"):
        two.result(SOON_S)
    assert doubler.calls == [[0], [1, 2, 3], [1], [2], [3]]


def test_an_item_alone_that_fails_is_not_tried_twice(together: Together[int, int], doubler: Doubler) -> None:
    doubler.spoilt = 7
    with pytest.raises(ValueError, match="7 spoils"):
        together.submit(7).result(SOON_S)
    assert doubler.calls == [[7]]
    assert together.submit(1).result(SOON_S) == 2, "the thread goes on"


def test_a_result_that_is_an_exception_is_raised_for_its_item_only(
    together: Together[int, int], doubler: Doubler
) -> None:
    doubler.refused = 2
    one, two, three = while_one_runs(together, doubler, [1, 2, 3])
    assert (one.result(SOON_S), three.result(SOON_S)) == (2, 6)
    with pytest.raises(KeyError):
        two.result(SOON_S)
    assert doubler.calls == [[0], [1, 2, 3]], "nothing is run twice"


def test_a_cancelled_item_is_not_run(together: Together[int, int], doubler: Doubler) -> None:
    doubler.gate.clear()
    together.submit(0)
    assert doubler.called.wait(SOON_S)
    one, two = together.submit(1), together.submit(2)
    assert one.cancel()
    doubler.gate.set()
    assert two.result(SOON_S) == 4
    assert doubler.calls == [[0], [2]]


def test_a_function_that_returns_too_few_results_fails_its_items_and_not_the_later_ones(
    together: Together[int, int], doubler: Doubler
) -> None:
    doubler.answer = lambda items: []
    assert together.submit(1).exception(SOON_S / 10) is not None
    doubler.answer = None
    assert together.submit(5).result(SOON_S / 10) == 10


def test_closing_runs_what_has_come(together: Together[int, int], doubler: Doubler) -> None:
    doubler.gate.clear()
    together.submit(0)
    assert doubler.called.wait(SOON_S)
    futures = [together.submit(item) for item in range(1, 10)]
    closing = threading.Thread(target=together.close)
    closing.start()
    doubler.gate.set()
    closing.join(SOON_S)
    assert [future.result(0) for future in futures] == [2 * item for item in range(1, 10)]


def test_after_closing_nothing_is_taken(together: Together[int, int]) -> None:
    together.close()
    with pytest.raises(RuntimeError, match="doubler is closed"):
        together.submit(1)
    together.close()


def test_an_item_that_comes_while_it_closes_is_run_or_refused(doubler: Doubler) -> None:
    """As when one thread closes while another one is between the check and the hand-over."""
    together = Together("doubler", doubler.run, most=4)
    arrived, closing = together._arrived, threading.Thread(target=together.close)

    class Slow:
        """Lets the other thread close, if it can, before the item is handed over."""

        def put(self, item: object) -> None:
            if item is not None:
                together._arrived = arrived
                closing.start()
                closing.join(0.02)
            arrived.put(item)  # type: ignore[arg-type]

        def get(self) -> object:
            return arrived.get()

        def empty(self) -> bool:
            return arrived.empty()

    together._arrived = Slow()  # type: ignore[assignment]
    try:
        future = together.submit(1)
    except RuntimeError:
        return
    closing.join(SOON_S)
    assert future.result(SOON_S / 10) == 2
