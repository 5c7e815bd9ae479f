"""Which waiting texts go into the next batch: near in length, within a token budget, everyone in turn."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from semel.backends.base import Tokens


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

    def pop_batch(self, max_tokens: int) -> list[Item]:
        """The next batch, padded size `max_tokens` at the most (but one text at the least)."""
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

    def _fits(self, start: int, end: int, max_tokens: int) -> bool:
        shortest, longest = self._by_length[start].length, self._by_length[end - 1].length
        # A quarter of padding at the worst; below 16 tokens a batch is cheap whatever it holds.
        near = longest - shortest <= max(16, longest // 4)
        # Half full and the next text is longer: stop here, a batch of one length needs neither padding nor a mask.
        grows = self._by_length[end - 2].length < longest
        enough = grows and 2 * self._by_length[end - 2].length * (end - start - 1) >= max_tokens
        return near and not enough and longest * (end - start) <= max_tokens


def bucket(size: int) -> int:
    """`size` rounded up to one of eight steps an octave, at most an eighth more.

    Frameworks that compile, or keep memory, for each tensor shape then meet few of them (pytorch #132596).
    """
    step = 1 << max(0, size.bit_length() - 4)
    return -(-size // step) * step
