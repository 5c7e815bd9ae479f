"""Texts on their way through the engine, and the parts that come back."""

import queue
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import numpy as np

from semel.backends.base import Backend
from semel.backends.batching import Item
from semel.errors import BackendError
from semel.tracing import NO_SPAN, Span, current_caller, is_on, span
from semel.values.text import ItemError
from semel.values.vectors import Vectors


@dataclass(frozen=True)
class Part:
    """What one batch gave one submission.

    Attributes:
        indices: positions in the submitted list; row i of `vectors` belongs to `indices[i]`.
        vectors: float32 (len(indices), dim).
        tokens: how many tokens the model read, for each of `indices`.
        truncated: for each of `indices`.
        errors: position → why that text failed; those are not in `indices`.
    """

    indices: list[int]
    vectors: Vectors
    tokens: list[int]
    truncated: list[bool]
    errors: dict[int, ItemError] = field(default_factory=dict)


@dataclass(frozen=True)
class EngineStats:
    """Counters since the start."""

    batches: int = 0
    texts: int = 0
    tokens: int = 0
    padded_tokens: int = 0
    busy_s: float = 0.0
    memory_halvings: int = 0


class Submission:
    """Texts on their way. Iterate to get the parts as their batches end, in no fixed order."""

    def __init__(self, count: int, *, label: object = None, alone: bool = False) -> None:
        self._left = count
        self.label = label
        self.alone = alone
        self.caller = current_caller()
        self.cancelled = False
        self._parts: queue.SimpleQueue[Part | BackendError] = queue.SimpleQueue()

    def deliver(self, part: Part | BackendError) -> None:
        self._parts.put(part)

    def cancel(self) -> None:
        """Nobody waits for the rest: what has not reached the device is dropped."""
        self.cancelled = True

    def __iter__(self) -> Iterator[Part]:
        """Raises BackendError when the device is lost; parts that came before are good."""
        while self._left > 0:
            part = self._parts.get()
            if isinstance(part, BackendError):
                raise part
            self._left -= len(part.indices) + len(part.errors)
            yield part


def batch_span(backend: Backend, items: list[Item]) -> AbstractContextManager[Span]:
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


def deliver(items: list[Item], results: list[Vectors | ItemError]) -> None:
    by_owner: dict[Submission, list[tuple[Item, Vectors | ItemError]]] = {}
    for item, result in zip(items, results, strict=True):
        by_owner.setdefault(item.owner, []).append((item, result))
    for owner, pairs in by_owner.items():
        good = [(item, row) for item, row in pairs if not isinstance(row, ItemError)]
        owner.deliver(
            Part(
                indices=[item.index for item, _ in good],
                vectors=np.stack([row for _, row in good]) if good else np.empty((0, 0), np.float32),
                tokens=[item.length for item, _ in good],
                truncated=[item.tokens.truncated for item, _ in good],
                errors={item.index: row for item, row in pairs if isinstance(row, ItemError)},
            )
        )
