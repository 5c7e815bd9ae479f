"""Which waiting texts form the next batch: texts of similar length, within a token budget, each in its turn."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from semel.backends.base import Backend, Tokens


@dataclass(eq=False, slots=True)
class Item:
    """A text that waits for the device.

    Attributes:
        owner: the submission that it belongs to.
        index: its position in that submission.
        length: number of tokens.
        order: its rank in order of arrival, from 1; `LengthSorted.add` sets it.
    """

    tokens: Tokens
    owner: Any
    index: int
    length: int = field(init=False)
    order: int = 0

    def __post_init__(self) -> None:
        self.length = len(self.tokens.ids)


class LengthSorted:
    """Waiting texts that are given out in batches, by a sweep from the shortest text to the longest.

    Each batch starts where the last one ended, so texts of similar length share a batch, whatever their owner, and
    padding stays small. A text that arrives behind the sweep waits for the next sweep: no text is passed over twice.
    """

    def __init__(self) -> None:
        self._ahead: dict[int, list[Item]] = {}  # length → texts that this sweep will reach, in order of arrival
        self._behind: dict[int, list[Item]] = {}
        self._swept_to = 0
        self._count = self._waiting = 0

    def __len__(self) -> int:
        return self._waiting

    def add(self, items: Sequence[Item]) -> None:
        """Let texts wait; sets their `order`."""
        for item in items:
            self._count += 1
            item.order = self._count
            # One of the length where the sweep stands is behind it: a stream of them would hold it up for ever.
            side = self._ahead if item.length > self._swept_to else self._behind
            side.setdefault(item.length, []).append(item)
        self._waiting += len(items)

    def pop_batch(self, max_tokens: Callable[[int], int]) -> list[Item]:
        """Remove and return the next batch. At least one text must be waiting.

        Args:
            max_tokens: length of the longest text of a batch → padded tokens that the batch may have at most. A
                single text may be longer.
        """
        if not self._ahead:
            self._ahead, self._behind, self._swept_to = self._behind, {}, 0
        batch: list[Item] = []
        for length in sorted(self._ahead):
            if batch and not _may_grow(batch, length, max_tokens(length)):
                break
            room = max_tokens(length) // max(1, length) - len(batch)  # a static embedding may find no token in a text
            room = max(room, 0 if batch else 1)
            texts = self._ahead.pop(length)
            if room:
                self._swept_to = length
                batch += texts[:room]
            if len(texts) > room:
                self._ahead[length] = texts[room:]
                break
        self._waiting -= len(batch)
        return batch

    def remove(self, which: Callable[[Item], bool]) -> list[Item]:
        """Remove and return the waiting texts for which `which` is true."""
        removed: list[Item] = []
        for side in (self._ahead, self._behind):
            for length, texts in list(side.items()):
                taken = [item for item in texts if which(item)]
                if taken:
                    removed += taken
                    side[length] = [item for item in texts if not which(item)]
                if not side[length]:
                    del side[length]
        self._waiting -= len(removed)
        return removed

    def drain(self) -> list[Item]:
        """Remove and return all waiting texts."""
        items = [item for side in (self._ahead, self._behind) for texts in side.values() for item in texts]
        self._ahead, self._behind, self._waiting = {}, {}, 0
        return items


def _may_grow(batch: list[Item], length: int, max_tokens: int) -> bool:
    """Whether longer texts, of this length, may join a batch."""
    # At most a quarter of a row is padding; below 16 tokens a batch is cheap whatever it holds.
    similar = length - batch[0].length <= max(16, length // 4)
    # A batch of one length needs neither padding nor a mask.
    half_full = 2 * batch[-1].length * len(batch) >= max_tokens
    return similar and not half_full


_BATCH_S = 0.1
"""The time of a batch, about, while interactive texts come: each waits for the batch that is running. On a CPU with 90
GFLOP/s it ended waits of 0.5 s behind bulk jobs; it costs them a fifth of their rate (docs/explanation/performance.md).
"""

_FEWEST_TOKENS = 256
"""Smaller batches cost throughput: a large model then reads its weights for too few tokens."""

_NEW_RATE_COUNTS = 0.2
"""The weight of the newest batch in the moving average of a backend's rate: a busy machine varies twofold."""


def _in_time(rate: float) -> int:
    """The tokens that take about `_BATCH_S`: a power of two, so that few shapes of batches occur."""
    tokens = max(_FEWEST_TOKENS, int(rate * _BATCH_S))
    return 1 << (tokens.bit_length() - 1)


class Budgets:
    """The padded tokens that a batch may have: what suits the backend, or less where memory ran out or time is short.

    Memory grows with the square of the length, so a limit found at one length means little for others: it is kept
    for each octave of lengths, and holds for longer texts.

    Args:
        max_batch_tokens: for every backend; None takes what each backend proposes, and less if it is slow and
            interactive texts come.
    """

    def __init__(self, max_batch_tokens: int | None) -> None:
        self._given = max_batch_tokens
        self._rates: dict[Backend, float] = {}
        self._full: dict[Backend, int] = {}
        self._reduced: dict[tuple[Backend, int], int] = {}

    def add(self, backend: Backend) -> None:
        """Give a loaded backend its full budget."""
        self._full[backend] = self._given or backend.get_model_info().max_batch_tokens

    def remove(self, backend: Backend) -> None:
        """Forget a backend and the limits that were found for it."""
        self._full.pop(backend, None)
        self._rates.pop(backend, None)
        self._reduced = {key: budget for key, budget in self._reduced.items() if key[0] is not backend}

    def of(self, backend: Backend, longest: int, *, short: bool = False) -> int:
        """Return the budget of a batch whose longest text has `longest` tokens.

        Args:
            short: the batch should take about a tenth of a second.
        """
        reduced = (
            budget
            for (known, octave), budget in self._reduced.items()
            if known is backend and octave <= longest.bit_length()
        )
        limits = [self._full[backend], *reduced]
        if short and self._given is None and backend in self._rates:
            limits.append(_in_time(self._rates[backend]))
        return min(limits)

    def measured(self, backend: Backend, *, padded: int, seconds: float) -> None:
        """Note the time of a batch of `padded` tokens. A small batch says nothing about the rate of a full one."""
        if padded >= _FEWEST_TOKENS // 2:
            rate = padded / seconds
            known = self._rates.get(backend, rate)
            self._rates[backend] = known + _NEW_RATE_COUNTS * (rate - known)

    def halve(self, backend: Backend, longest: int, *, padded: int) -> int:
        """Reduce the budget after a batch of `padded` tokens ran out of memory; returns the new budget."""
        budget = max(16, min(self.of(backend, longest), padded) // 2)
        self._reduced[backend, longest.bit_length()] = budget
        return budget


def bucket(size: int) -> int:
    """Round `size` up to one of eight steps per octave, which adds an eighth at most.

    Frameworks that compile, or keep memory, for each tensor shape then see few shapes (pytorch #132596).
    """
    step = 1 << max(0, size.bit_length() - 4)
    return -(-size // step) * step
