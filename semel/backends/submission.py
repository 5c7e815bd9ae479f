"""Texts on their way through the engine, and the parts of the result that come back."""

import queue
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from threading import Condition
from typing import Any, TypeAlias

import numpy as np

from semel.backends.base import Backend
from semel.backends.batching import Item
from semel.errors import BackendError
from semel.tracing import NO_SPAN, Span, current_caller, is_on, span
from semel.values.text import ItemError
from semel.values.vectors import AnyVectors, stacked

_MOST_UNREAD_S = 0.25
"""Enough to compute the next batches while one is stored."""


@dataclass(frozen=True)
class Part:
    """The results of one batch for one submission.

    Attributes:
        indices: positions in the submitted list; row i of `vectors` belongs to `indices[i]`.
        vectors: `AnyVectors` of len(indices).
        tokens: number of tokens that the model read, for each of `indices`.
        truncated: whether the text was longer than the model reads, for each of `indices`.
        errors: position → why that text failed; these positions are not in `indices`.
        device_s: their share of the time that the batch took on the device.
    """

    indices: list[int]
    vectors: AnyVectors
    tokens: list[int]
    truncated: list[bool]
    errors: dict[int, ItemError] = field(default_factory=dict)
    device_s: float = 0.0


class Unread:
    """The device time whose results are computed, and that no caller has read yet. Thread-safe.

    A process that is killed loses it. So bulk texts wait while there is too much, as when the database is locked.

    Args:
        changed: notified when there is less.
    """

    def __init__(self, changed: Condition) -> None:
        self.changed = changed
        self.seconds = 0.0

    @property
    def is_much(self) -> bool:
        """Whether bulk texts should wait."""
        return self.seconds >= _MOST_UNREAD_S

    def add(self, seconds: float) -> None:
        """Count device time; negative when its results are read."""
        with self.changed:
            self.seconds += seconds
            if seconds < 0:
                self.changed.notify()


@dataclass(frozen=True)
class ModelStats:
    """What one model has computed since the start of the engine, and the device's seconds that it took."""

    texts: int = 0
    tokens: int = 0
    busy_s: float = 0.0


@dataclass(frozen=True)
class EngineStats:
    """Counters since the start of the engine.

    Attributes:
        padded_tokens: tokens that the device computed, padding included.
        busy_s: seconds in which the device ran batches.
        memory_halvings: batches that were too large for the device's memory.
        by_model: model → what it computed.
    """

    batches: int = 0
    texts: int = 0
    tokens: int = 0
    padded_tokens: int = 0
    busy_s: float = 0.0
    memory_halvings: int = 0
    by_model: Mapping[str, ModelStats] = field(default_factory=dict)

    def after_batch(self, model: str, *, texts: int, tokens: int, padded_tokens: int, seconds: float) -> "EngineStats":
        """The counters after one more batch."""
        before = self.by_model.get(model, ModelStats())
        after = ModelStats(before.texts + texts, before.tokens + tokens, before.busy_s + seconds)
        return EngineStats(
            by_model={**self.by_model, model: after},
            batches=self.batches + 1,
            texts=self.texts + texts,
            tokens=self.tokens + tokens,
            padded_tokens=self.padded_tokens + padded_tokens,
            busy_s=self.busy_s + seconds,
            memory_halvings=self.memory_halvings,
        )


class Submission:
    """Texts on their way through the engine. Iterate over it to get the parts as their batches end, in no fixed order.

    Args:
        count: number of texts.
        label, alone, wanted: as for `Engine.submit`.
        unread: counts the parts that wait for the caller; None if nobody waits for them to be read.

    Attributes:
        caller: the span that submitted the texts, for traces.
        cancelled: no caller waits for the rest.
    """

    def __init__(
        self,
        count: int,
        *,
        label: object = None,
        alone: bool = False,
        wanted: Callable[[int], bool] | None = None,
        unread: Unread | None = None,
    ) -> None:
        self._left = count
        self._unread = unread or Unread(Condition())
        self._wanted = wanted
        self.label = label
        self.alone = alone
        self.caller = current_caller()
        self.cancelled = False
        self._parts: queue.SimpleQueue[Part | BackendError] = queue.SimpleQueue()

    def deliver(self, part: Part | BackendError) -> None:
        """Hand over a part, or the error that ends the submission. The engine calls this."""
        with self._unread.changed:
            if not self.cancelled:
                self._parts.put(part)
                self._unread.add(_device_s(part))

    def wants(self, index: int) -> bool:
        """Whether the text at this position is still to be computed."""
        return not self.cancelled and (self._wanted is None or self._wanted(index))

    def cancel(self) -> None:
        """Drop the texts that have not reached the device, and the parts that were not read: nobody waits for them."""
        with self._unread.changed:
            self.cancelled = True
            while not self._parts.empty():
                self._unread.add(-_device_s(self._parts.get()))

    def __iter__(self) -> Iterator[Part]:
        """Yield parts until every text has a row or an error.

        Raises BackendError if the device is lost; the parts before it stay valid.
        """
        while self._left > 0:
            part = self._parts.get()
            self._unread.add(-_device_s(part))
            if isinstance(part, BackendError):
                raise part
            self._left -= len(part.indices) + len(part.errors)
            yield part


def _device_s(part: Part | BackendError) -> float:
    return part.device_s if isinstance(part, Part) else 0.0


def batch_span(backend: Backend, items: list[Item]) -> AbstractContextManager[Span]:
    """The trace's span for one batch, linked to the spans that submitted its texts."""
    if not is_on():
        return NO_SPAN
    info, tokens = backend.get_model_info(), sum(item.length for item in items)
    owners = dict.fromkeys(item.owner for item in sorted(items, key=lambda item: item.order))
    padded = max(item.length for item in items) * len(items)
    return span(
        "semel.batch",
        callers=(owner.caller for owner in owners),
        model=info.name,
        device=info.device,
        texts=len(items),
        tokens=tokens,
        padded_tokens=padded,
    )


NOT_WANTED = ItemError("not_wanted", "nobody waits for this text any more, so it was not computed")
"""The error of a text that reached the device too late."""


Results: TypeAlias = AnyVectors | list[Any]
"""One row, or `ItemError`, for each text of a batch: `AnyVectors` where no text failed."""


def deliver(items: list[Item], results: Results, *, device_s: float = 0.0) -> None:
    """Hand each owner its share of a batch, as one part.

    Args:
        device_s: how long the batch took on the device.
    """
    if len(items) != len(results):
        raise ValueError(f"a batch of {len(items)} texts has {len(results)} results")
    rows_of = defaultdict[Submission, list[int]](list)
    for row, item in enumerate(items):
        rows_of[item.owner].append(row)
    for owner, rows in rows_of.items():
        owner.deliver(_part(items, results, rows, device_s * len(rows) / len(items)))


def _part(items: list[Item], results: Results, rows: list[int], device_s: float) -> Part:
    errors = dict[int, ItemError]()
    if isinstance(results, np.ndarray):
        vectors = results[rows]
    else:
        found = [(row, results[row]) for row in rows]
        errors = {items[row].index: result for row, result in found if isinstance(result, ItemError)}
        good = [(row, result) for row, result in found if not isinstance(result, ItemError)]
        rows = [row for row, _ in good]
        vectors = stacked([vector for _, vector in good])
    return Part(
        indices=[items[row].index for row in rows],
        vectors=vectors,
        tokens=[items[row].length for row in rows],
        truncated=[items[row].tokens.truncated for row in rows],
        errors=errors,
        device_s=device_s,
    )
