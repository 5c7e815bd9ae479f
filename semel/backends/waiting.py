"""The texts that wait for a device, by lane, model and owner, and whose turn it is."""

from collections.abc import Collection
from functools import partial
from typing import TypeAlias

from semel.backends.base import Backend
from semel.backends.batching import Budgets, Item, LengthSorted
from semel.backends.lanes import Lanes
from semel.backends.submission import Submission
from semel.values.text import Lane

_Queue: TypeAlias = tuple[Lane, Backend, Submission | None]
"""What texts that may share a batch have in common; their owner, if one of them may kill the device."""


class Waiting:
    """Texts that wait for their batch. Not thread-safe.

    Args:
        budgets: how large batches may be.
    """

    def __init__(self, budgets: Budgets) -> None:
        self._budgets = budgets
        self._lanes = Lanes()
        self._queues: dict[_Queue, LengthSorted] = {}

    def __bool__(self) -> bool:
        return bool(self._queues)

    @property
    def has_urgent(self) -> bool:
        """Whether texts wait that are not bulk: interactive ones, or those that may kill the device."""
        return any(lane is not Lane.BULK or suspect is not None for lane, _, suspect in self._queues)

    def add(self, lane: Lane, backend: Backend, owner: Submission, items: list[Item]) -> None:
        """Let texts of one owner wait: at least one."""
        queue = (lane, backend, owner if owner.alone else None)
        self._queues.setdefault(queue, LengthSorted()).add(items)

    def next_batch(self) -> tuple[Backend, list[Item]]:
        """Remove and return the next batch, and its model. At least one text must be waiting."""
        lane = self._lanes.choose({lane for lane, *_ in self._queues})
        # A suspect goes first: others must not end the process while its text is on record as the one on the device.
        suspects = (queue for queue in self._queues if queue[2] is not None)
        queue = next(suspects, None) or next(queue for queue in self._queues if queue[0] is lane)
        texts = self._queues[queue]
        batch = texts.pop_batch(partial(self._budgets.of, queue[1], short=self._lanes.short_batches))
        del self._queues[queue]
        if len(texts):
            self._queues[queue] = texts  # at the end: the queues of a lane take turns
        return queue[1], batch

    def hurry(self, backend: Backend, texts: Collection[tuple[Submission, int]]) -> None:
        """Move texts of a model from the bulk to the interactive lane, because an interactive request waits for them.

        Args:
            texts: submission and position of each; those that do not wait any more are ignored.
        """
        bulk = self._queues.get((Lane.BULK, backend, None))
        if bulk is None:
            return
        wanted = set(texts)
        if items := bulk.remove(lambda item: (item.owner, item.index) in wanted):
            self._queues.setdefault((Lane.INTERACTIVE, backend, None), LengthSorted()).add(items)
        if not len(bulk):
            del self._queues[Lane.BULK, backend, None]

    def drain(self, backend: Backend | None = None) -> set[Submission]:
        """Remove all texts, or those of one model; returns their owners."""
        gone = [queue for queue in self._queues if backend in (None, queue[1])]
        return {item.owner for queue in gone for item in self._queues.pop(queue).drain()}
