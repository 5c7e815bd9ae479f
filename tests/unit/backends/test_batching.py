"""Which texts share a batch."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from semel.backends.base import ModelInfo, Tokens
from semel.backends.batching import Budgets, Item, LengthSorted, bucket
from semel.backends.fake import FakeBackend, FakeOptions


def items(lengths: list[int]) -> list[Item]:
    return [Item(Tokens(range(length), truncated=False), None, i) for i, length in enumerate(lengths)]


def lengths(batch: list[Item]) -> list[int]:
    return [item.length for item in batch]


@given(st.lists(st.integers(0, 300), min_size=1, max_size=60), st.integers(16, 2000))
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


def test_no_stream_of_newcomers_holds_up_the_sweep() -> None:
    waiting = LengthSorted()
    waiting.add(items([10] * 5 + [300]))
    out = []
    for _ in range(4):
        out += lengths(waiting.pop_batch(lambda _: 20))
        waiting.add(items([10, 10]))
    assert 300 in out


def test_texts_of_one_length_come_out_in_order_of_arrival() -> None:
    waiting = LengthSorted()
    waiting.add(items([10] * 5))
    batches = [[item.index for item in waiting.pop_batch(lambda _: 20)] for _ in range(3)]
    assert batches == [[0, 1], [2, 3], [4]]


class Sized(FakeBackend):
    """A model that proposes batches of a size."""

    def __init__(self, max_batch_tokens: int) -> None:
        super().__init__("sized", FakeOptions(), device="cpu")
        self._proposed = max_batch_tokens

    def get_model_info(self) -> ModelInfo:
        return replace(super().get_model_info(), max_batch_tokens=self._proposed)


def budgets(*backends: Sized, given: int | None = None) -> Budgets:
    made = Budgets(given)
    for backend in backends:
        made.add(backend)
    return made


def test_a_budget_is_what_the_model_proposes_or_what_is_given() -> None:
    model = Sized(1000)
    assert budgets(model).of(model, 5) == 1000
    assert budgets(model, given=300).of(model, 5) == 300


def test_a_reduced_budget_is_that_of_one_model() -> None:
    one, other = Sized(1000), Sized(2000)
    both = budgets(one, other)
    both.halve(one, 10, padded=1000)
    assert (both.of(one, 10), both.of(other, 10)) == (500, 2000)


def test_a_batch_below_the_budget_that_was_too_large_halves_from_its_own_size() -> None:
    model = Sized(1000)
    assert budgets(model).halve(model, 10, padded=80) == 40


def test_a_budget_stays_large_enough_for_short_texts() -> None:
    model = Sized(1000)
    made = budgets(model)
    for _ in range(20):
        made.halve(model, 10, padded=made.of(model, 10))
    assert made.of(model, 10) == 16


def test_a_slow_model_gets_batches_of_a_tenth_of_a_second_when_time_is_short() -> None:
    model = Sized(4096)
    made = budgets(model)
    made.measured(model, padded=4096, seconds=0.8)  # 512 tokens in 0.1 s
    assert (made.of(model, 5, short=True), made.of(model, 5)) == (512, 4096)


def test_a_fast_model_gets_full_batches_and_a_very_slow_one_no_tiny_batches() -> None:
    fast, slow = Sized(4096), Sized(4096)
    both = budgets(fast, slow)
    both.measured(fast, padded=4096, seconds=0.01)
    both.measured(slow, padded=4096, seconds=60.0)
    assert (both.of(fast, 5, short=True), both.of(slow, 5, short=True)) == (4096, 256)


def test_a_rate_follows_the_machine_and_ignores_small_batches() -> None:
    model = Sized(4096)
    made = budgets(model)
    made.measured(model, padded=1024, seconds=0.1)
    made.measured(model, padded=10, seconds=5.0)
    assert made.of(model, 5, short=True) == 1024
    for _ in range(20):
        made.measured(model, padded=1024, seconds=0.2)
    assert made.of(model, 5, short=True) == 512


def test_a_given_budget_is_kept_however_slow_the_model_is() -> None:
    model = Sized(4096)
    made = budgets(model, given=2048)
    made.measured(model, padded=2048, seconds=10.0)
    assert made.of(model, 5, short=True) == 2048


def test_a_removed_model_begins_again_with_its_full_budget() -> None:
    one, other = Sized(1000), Sized(1000)
    both = budgets(one, other)
    both.halve(one, 10, padded=1000)
    both.halve(other, 10, padded=1000)
    both.measured(one, padded=1000, seconds=9.0)
    both.remove(one)
    both.add(one)
    assert (both.of(one, 10), both.of(other, 10)) == (1000, 500)


def test_a_budget_that_depends_on_the_longest_text_is_asked_for_each_length() -> None:
    waiting = LengthSorted()
    waiting.add(items([10, 10, 12, 12]))
    assert lengths(waiting.pop_batch(lambda longest: 1000 if longest < 12 else 12)) == [10, 10]


def test_a_batch_that_is_half_full_stops_before_a_longer_text() -> None:
    waiting = LengthSorted()
    waiting.add(items([10] * 5 + [11] * 5))
    assert lengths(waiting.pop_batch(lambda _: 100)) == [10] * 5
    waiting.add(items([10] * 4))
    assert lengths(waiting.pop_batch(lambda _: 100)) == [11] * 5
    waiting.add(items([11]))
    assert lengths(waiting.pop_batch(lambda _: 100)) == [10] * 4 + [11], "a batch that is not half full goes on"


@given(st.integers(1, 1 << 20))
def test_a_bucket_adds_an_eighth_at_most(size: int) -> None:
    assert size <= bucket(size) <= size + size // 8
    assert bucket(bucket(size)) == bucket(size)


def test_there_are_eight_buckets_in_an_octave() -> None:
    assert len({bucket(size) for size in range(1025, 2049)}) == 8
    assert [bucket(size) for size in (0, 1, 15, 17, 33)] == [0, 1, 15, 18, 36]
