"""Which waiting texts go into the next batch: near in length, within a token budget, the oldest among them."""

from bisect import bisect_left
from collections import deque
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
    taken: bool = False

    @property
    def length(self) -> int:
        return len(self.tokens.ids)


def _place(item: Item) -> tuple[int, int]:
    return item.length, item.order


class LengthSorted:
    """A waiting room that gives out batches.

    Each batch holds the text that waits longest and its neighbours in length. So padding stays small over
    everything that waits, whoever sent it, and no text is passed over for ever.
    """

    def __init__(self) -> None:
        self._by_length: list[Item] = []
        self._by_age: deque[Item] = deque()
        self._count = 0

    def __len__(self) -> int:
        return len(self._by_length)

    def add(self, items: Sequence[Item]) -> None:
        for item in items:
            self._count += 1
            item.order = self._count
        self._by_age.extend(items)
        self._by_length.extend(items)
        self._by_length.sort(key=_place)  # two sorted runs: timsort merges them in linear time

    def pop_batch(self, max_tokens: int) -> list[Item]:
        """The next batch, padded size `max_tokens` at the most (but one text at the least)."""
        while self._by_age[0].taken:
            self._by_age.popleft()
        oldest = self._by_age[0]
        at = bisect_left(self._by_length, _place(oldest), key=_place)
        low, high = self._window(at, max_tokens)
        batch = self._by_length[low:high]
        del self._by_length[low:high]
        for item in batch:
            item.taken = True
        return batch

    def drain(self) -> list[Item]:
        """Everything that waits."""
        items, self._by_length = self._by_length, []
        self._by_age.clear()
        return items

    def _window(self, at: int, max_tokens: int) -> tuple[int, int]:
        """The run around `at` that fits, grown towards the nearer length on either side."""
        rooms = self._by_length
        low, high = at, at + 1
        while True:
            below = rooms[at].length - rooms[low - 1].length if low > 0 else None
            above = rooms[high].length - rooms[at].length if high < len(rooms) else None
            up = above is not None and (below is None or above <= below)
            if up and self._fits(low, high + 1, max_tokens):
                high += 1
            elif below is not None and self._fits(low - 1, high, max_tokens):
                low -= 1
            else:
                return low, high

    def _fits(self, low: int, high: int, max_tokens: int) -> bool:
        longest, shortest = self._by_length[high - 1].length, self._by_length[low].length
        # A quarter of padding at the worst; below 16 tokens a batch is cheap whatever it holds.
        near = longest - shortest <= max(16, longest // 4)
        return near and longest * (high - low) <= max_tokens
