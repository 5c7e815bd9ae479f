"""Which waiting texts go into the next batch: near in length, within a token budget, everyone in turn."""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from semel.backends.base import Backend, Tokens


@dataclass(eq=False, slots=True)
class Item:
    """A text that waits. `owner` and `index` say whose it is."""

    tokens: Tokens
    owner: Any
    index: int
    order: int = 0

    @property
    def length(self) -> int:
        return len(self.tokens.ids)


def _place(item: Item) -> tuple[int, int]:
    # Newcomers before those of the same length: behind the sweep, or a stream of them would hold it up for ever.
    return item.length, -item.order


class LengthSorted:
    """A waiting room that gives out batches, sweeping from the shortest text to the longest, like a lift.

    Each batch starts where the last one ended, so neighbours in length stay together, whoever sent them, and
    padding stays small. What arrives behind the sweep waits for the next one: no text is passed over twice.
    """

    def __init__(self) -> None:
        self._by_length: list[Item] = []
        self._count = 0
        self._swept_to = (0, 0)

    def __len__(self) -> int:
        return len(self._by_length)

    def add(self, items: Sequence[Item]) -> None:
        for item in items:
            self._count += 1
            item.order = self._count
        self._by_length.extend(items)
        self._by_length.sort(key=_place)  # two sorted runs: timsort merges them in linear time

    def pop_batch(self, max_tokens: Callable[[int], int]) -> list[Item]:
        """The next batch.

        Args:
            max_tokens: the longest text of a batch → its padded size at the most (but one text at the least).
        """
        start = bisect_left(self._by_length, self._swept_to, key=_place)
        if start == len(self._by_length):
            start = 0
        end = start + 1
        while end < len(self._by_length) and self._fits(start, end + 1, max_tokens):
            end += 1
        batch = self._by_length[start:end]
        del self._by_length[start:end]
        self._swept_to = _place(batch[-1])
        return batch

    def drain(self) -> list[Item]:
        """Everything that waits."""
        items, self._by_length = self._by_length, []
        return items

    def _fits(self, start: int, end: int, max_tokens_of: Callable[[int], int]) -> bool:
        shortest, longest = self._by_length[start].length, self._by_length[end - 1].length
        max_tokens = max_tokens_of(longest)
        # A quarter of padding at the worst; below 16 tokens a batch is cheap whatever it holds.
        near = longest - shortest <= max(16, longest // 4)
        # Half full and the next text is longer: stop here, a batch of one length needs neither padding nor a mask.
        grows = self._by_length[end - 2].length < longest
        enough = grows and 2 * self._by_length[end - 2].length * (end - start - 1) >= max_tokens
        first, last = self._by_length[start].owner, self._by_length[end - 1].owner
        together = first is last or not (_alone(first) or _alone(last))
        return near and not enough and together and longest * (end - start) <= max_tokens


def _alone(owner: Any) -> bool:
    """Whether its texts are not to be mixed with those of others."""
    return bool(getattr(owner, "alone", False))


class Budgets:
    """Padded tokens that a batch may have: what suits the backend, less where memory ran out.

    Memory goes with the square of the length, so what was learned at one length says little about another: it is
    kept for each octave of lengths, and holds for the longer ones.

    Args:
        max_batch_tokens: for every backend; None takes each one's own.
    """

    def __init__(self, max_batch_tokens: int | None) -> None:
        self._given = max_batch_tokens
        self._whole: dict[Backend, int] = {}
        self._learned: dict[tuple[Backend, int], int] = {}

    def add(self, backend: Backend) -> None:
        self._whole[backend] = self._given or backend.get_model_info().max_batch_tokens

    def remove(self, backend: Backend) -> None:
        self._whole.pop(backend, None)
        self._learned = {key: budget for key, budget in self._learned.items() if key[0] is not backend}

    def of(self, backend: Backend, longest: int) -> int:
        """For a batch whose longest text has this many tokens."""
        learned = (
            budget
            for (known, octave), budget in self._learned.items()
            if known is backend and octave <= longest.bit_length()
        )
        return min(self._whole[backend], *learned, 1 << 62)

    def halve(self, backend: Backend, longest: int, *, padded: int) -> int:
        """After a batch of `padded` tokens was too large; returns what is left."""
        budget = max(16, min(self.of(backend, longest), padded) // 2)
        self._learned[backend, longest.bit_length()] = budget
        return budget


def bucket(size: int) -> int:
    """`size` rounded up to one of eight steps an octave, at most an eighth more.

    Frameworks that compile, or keep memory, for each tensor shape then meet few of them (pytorch #132596).
    """
    step = 1 << max(0, size.bit_length() - 4)
    return -(-size // step) * step
