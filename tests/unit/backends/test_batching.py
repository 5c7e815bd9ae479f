"""Which texts share a batch."""

from hypothesis import given
from hypothesis import strategies as st

from semel.backends.base import Tokens
from semel.backends.batching import Item, LengthSorted


def items(lengths: list[int]) -> list[Item]:
    return [Item(Tokens(range(length), truncated=False), None, i) for i, length in enumerate(lengths)]


def lengths(batch: list[Item]) -> list[int]:
    return [item.length for item in batch]


@given(st.lists(st.integers(1, 300), min_size=1, max_size=60), st.integers(16, 2000))
def test_every_text_comes_out_once_within_the_budget(given_lengths: list[int], budget: int) -> None:
    waiting = LengthSorted()
    waiting.add(items(given_lengths))
    out: list[Item] = []
    while len(waiting):
        batch = waiting.pop_batch(lambda _: budget)
        assert len(batch) == 1 or max(lengths(batch)) * len(batch) <= budget
        out += batch
    assert sorted(item.index for item in out) == list(range(len(given_lengths)))


def test_texts_of_similar_length_share_a_batch() -> None:
    waiting = LengthSorted()
    waiting.add(items([10, 200, 11, 190, 12]))
    assert lengths(waiting.pop_batch(lambda _: 1000)) == [10, 11, 12]
    assert lengths(waiting.pop_batch(lambda _: 1000)) == [190, 200]


def test_a_text_that_arrives_behind_the_sweep_waits_for_the_next_one() -> None:
    waiting = LengthSorted()
    waiting.add(items([10, 100, 200]))
    assert lengths(waiting.pop_batch(lambda _: 100)) == [10]
    waiting.add(items([10, 10, 10]))
    assert lengths(waiting.pop_batch(lambda _: 100)) == [100]
    assert lengths(waiting.pop_batch(lambda _: 200)) == [200]
    assert lengths(waiting.pop_batch(lambda _: 100)) == [10, 10, 10]


def test_a_text_above_the_budget_goes_alone() -> None:
    waiting = LengthSorted()
    waiting.add(items([500, 500]))
    assert lengths(waiting.pop_batch(lambda _: 100)) == [500]


def test_draining_returns_everything_that_waits() -> None:
    waiting = LengthSorted()
    waiting.add(items([1, 2]))
    assert len(waiting.drain()) == 2
    assert len(waiting) == 0


def test_a_suspect_text_shares_no_batch_with_others() -> None:
    class Owner:
        def __init__(self, *, alone: bool) -> None:
            self.alone = alone

    suspect, other = Owner(alone=True), Owner(alone=False)
    waiting = LengthSorted()
    waiting.add(
        [Item(Tokens([1] * 5, truncated=False), owner, i) for i, owner in enumerate([other, suspect, suspect, other])]
    )
    batches = []
    while len(waiting):
        batches.append({item.owner for item in waiting.pop_batch(lambda _: 1000)})
    assert all(len(owners) == 1 for owners in batches)
    assert {suspect} in batches
