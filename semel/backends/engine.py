"""The engine: merges what many task threads want into batches, and runs them on the one device thread."""

import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from semel.backends.base import Backend
from semel.backends.batching import Budgets, Item, LengthSorted
from semel.backends.submission import EngineStats, Submission, batch_span, deliver
from semel.errors import BackendError, DeviceMemoryError, SemelError
from semel.log import get_log
from semel.tracing import span
from semel.values.text import Input, ItemError, Lane
from semel.values.vectors import Vectors, sound_rows

log = get_log("engine")

_TOKENIZE_SLICE = 256
"""Texts tokenised at a time, so that the device starts before a whole chunk is tokenised."""

_FIRST = 10.0
"""The first batch may take so many times as long as any later one before it counts as stuck."""

_INTERACTIVE_RUN = 8
"""Batches of the interactive lane in a row while bulk waits; then bulk gets one, or it would starve."""


def _unobserved(_first: object, _second: object) -> None:
    pass


class Engine:
    """One device thread, shared by all models of a device.

    Args:
        max_batch_tokens: padded tokens in a batch; None takes what suits the backend.
        observe: told `tokenise` or `device`, and the seconds that it took.
        on_batch: told the texts and padded tokens of each batch.
    """

    def __init__(
        self,
        *,
        max_batch_tokens: int | None = None,
        observe: Callable[[str, float], None] = _unobserved,
        on_batch: Callable[[int, int], None] = _unobserved,
    ) -> None:
        self._observe = observe
        self._on_batch = on_batch
        self._budgets = Budgets(max_batch_tokens)
        self._waiting: dict[tuple[Lane, Backend], LengthSorted] = {}
        self._calls: queue.SimpleQueue[tuple[Callable[[], None], threading.Event, list[Exception]]]
        self._calls = queue.SimpleQueue()
        self._in_hand: tuple[float, int, list[Item]] | None = None
        self._changed = threading.Condition()
        self._stopping = False
        self._failure: BackendError | None = None
        self._interactive_run = 0
        self.stats = EngineStats()
        self._thread = threading.Thread(target=self._run, name="device", daemon=True)
        self._thread.start()

    def load(self, backend: Backend) -> str:
        """Load, check and warm up on the device thread; says of the warm-up what was done.

        Raises:
            ModelLoadError: as `Backend.load`.
            BackendError: the device computes nonsense.
        """
        said = list[str]()
        self._call(lambda: said.append(self._load(backend)))
        return said[0]

    def unload(self, backend: Backend) -> None:
        """Give its memory back, between two batches. Nothing of it may wait."""
        self._call(backend.close)
        self._budgets.remove(backend)
        with self._changed:
            self._waiting = {key: room for key, room in self._waiting.items() if key[1] is not backend}

    def _call(self, what: Callable[[], None]) -> None:
        """Run on the device thread, and wait for it."""
        done, errors = threading.Event(), list[Exception]()
        with self._changed:
            if self._failure is not None:
                raise self._failure
            self._calls.put((what, done, errors))
            self._changed.notify()
        done.wait()
        if errors:
            raise errors[0]

    def hangs(self, *, after_s: float, factor: float) -> float | None:
        """Seconds of the batch that the device has in hand, when it takes far too long; else None.

        Args:
            after_s: never before this; for the first batch, ten times this.
            factor: times what so many tokens usually take.
        """
        in_hand, stats = self._in_hand, self.stats
        if in_hand is None:
            return None
        started, padded, _ = in_hand
        usual_s = padded * stats.busy_s / stats.padded_tokens if stats.padded_tokens else _FIRST * after_s / factor
        in_hand_s = time.perf_counter() - started
        return in_hand_s if in_hand_s > max(after_s, factor * usual_s) else None

    def submit(
        self,
        backend: Backend,
        texts: Sequence[Input],
        *,
        prompt: str = "",
        lane: Lane = Lane.BULK,
        label: object = None,
        alone: bool = False,
    ) -> Submission:
        """Tokenise in this thread and queue for the device.

        Args:
            backend: loaded by `load`.
            texts: non-empty strings, or pairs of them for a cross-encoder.
            label: whose they are, for `in_hand`.
            alone: in batches of their own: one of them may have killed a device.

        Raises:
            BackendError: the device is lost.
        """
        submission = Submission(len(texts), label=label, alone=alone)
        for start in range(0, len(texts), _TOKENIZE_SLICE):
            started = time.perf_counter()
            part = texts[start : start + _TOKENIZE_SLICE]
            with span("semel.tokenise", texts=len(part)):
                tokens = backend.tokenize(part, prompt=prompt)
            self._observe("tokenise", time.perf_counter() - started)
            items = [Item(t, submission, start + i) for i, t in enumerate(tokens)]
            with self._changed:
                if self._failure is not None:
                    raise self._failure
                self._waiting.setdefault((lane, backend), LengthSorted()).add(items)
                self._changed.notify()
        return submission

    def in_hand(self) -> set[object]:
        """Labels of the texts that the device has in hand."""
        batch = self._in_hand
        return set() if batch is None else {item.owner.label for item in batch[2]}

    def close(self) -> None:
        """Stop after the batch in hand; what waits fails with BackendError."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join()

    # The device thread

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopping or not self._calls.empty() or any(self._waiting.values()))
                stopping, work = self._stopping, None
                if not stopping and self._calls.empty():
                    work = self._next_batch()
            if stopping:
                self._give_up(BackendError("the engine was stopped"))
                return
            if work is None:
                self._answer(*self._calls.get())
            elif work[1] and not self._run_batch_or_stop(*work):
                return

    def _answer(self, what: Callable[[], None], done: threading.Event, errors: list[Exception]) -> None:
        try:
            what()
        except Exception as error:  # carried to the thread that asked
            errors.append(error)
        done.set()

    def _load(self, backend: Backend) -> str:
        backend.load()
        backend.health_check()
        self._budgets.add(backend)
        return backend.warm_up()

    def _next_batch(self) -> tuple[Backend, list[Item]]:
        rooms = {key: room for key, room in self._waiting.items() if len(room)}
        lanes = {lane for lane, _ in rooms}
        lane = Lane.INTERACTIVE if Lane.INTERACTIVE in lanes else Lane.BULK
        if len(lanes) == 2 and self._interactive_run >= _INTERACTIVE_RUN:
            lane = Lane.BULK
        self._interactive_run = self._interactive_run + 1 if lane is Lane.INTERACTIVE else 0
        key = next(key for key in rooms if key[0] is lane)
        self._waiting[key] = self._waiting.pop(key)  # to the end: models of a lane take turns
        batch = rooms[key].pop_batch(partial(self._budgets.of, key[1]))
        return key[1], [item for item in batch if not item.owner.cancelled]

    def _run_batch_or_stop(self, backend: Backend, items: list[Item]) -> bool:
        """False when the device is lost; whoever waits is told, whatever went wrong, or would wait for ever."""
        try:
            self._run_batch(backend, items)
        except Exception as error:
            lost = error
            if not isinstance(lost, BackendError):
                lost = BackendError(f"the device thread stopped: {type(error).__name__}: {error}")
            for item in items:
                item.owner.deliver(lost)
            self._give_up(lost)
            return False
        return True

    def _run_batch(self, backend: Backend, items: list[Item]) -> None:
        """Compute and deliver. Raises BackendError when the device is lost."""
        started = time.perf_counter()
        self._in_hand = (started, max(item.length for item in items) * len(items), items)
        try:
            with batch_span(backend, items):
                results = self._compute(backend, items)
            self._count(items, time.perf_counter() - started)
            if all(isinstance(result, ItemError) for result in results):
                backend.health_check()  # one bad text, or a dead device? Only a known text can tell
        finally:
            self._in_hand = None
        deliver(items, results)

    def _compute(self, backend: Backend, items: list[Item]) -> list[Vectors | ItemError]:
        """One row or error for each item. A batch that fails is halved until the culprit stands alone."""
        try:
            vectors = backend.forward([item.tokens for item in items])
        except DeviceMemoryError as error:
            self._halve_budget(backend, items)
            if len(items) == 1:
                return [ItemError.of(error)]
        except Exception as error:  # frameworks raise anything; here it becomes the error of one text
            if len(items) == 1:
                code = error.code if isinstance(error, SemelError) else BackendError.code
                log.warning("a text makes the model fail", reason=str(error), tokens=items[0].length)
                return [ItemError(code, f"the model fails on this text: {error}")]
        else:
            return self._check(backend, items, vectors)
        half = len(items) // 2
        return self._compute(backend, items[:half]) + self._compute(backend, items[half:])

    def _check(self, backend: Backend, items: list[Item], vectors: Vectors) -> list[Vectors | ItemError]:
        """Rows that are NaN or zero are computed again alone: padding alone can make them so."""
        results: list[Vectors | ItemError] = list(vectors)
        for row in np.flatnonzero(~sound_rows(vectors)):
            if len(items) == 1:
                return [ItemError("invalid_vector", "the model returns a NaN or zero vector for this text")]
            results[row] = self._compute(backend, [items[row]])[0]
        return results

    def _halve_budget(self, backend: Backend, items: list[Item]) -> None:
        longest = max(item.length for item in items)
        left = self._budgets.halve(backend, longest, padded=longest * len(items))
        self.stats = replace(self.stats, memory_halvings=self.stats.memory_halvings + 1)
        log.warning("out of memory, smaller batches of such texts from now on", tokens=longest, max_batch_tokens=left)

    def _count(self, items: list[Item], seconds: float) -> None:
        lengths = [item.length for item in items]
        self._observe("device", seconds)
        self._on_batch(len(items), max(lengths) * len(items))
        was = self.stats
        self.stats = replace(
            was,
            batches=was.batches + 1,
            texts=was.texts + len(items),
            tokens=was.tokens + sum(lengths),
            padded_tokens=was.padded_tokens + max(lengths) * len(items),
            busy_s=was.busy_s + seconds,
        )

    def _give_up(self, error: BackendError) -> None:
        with self._changed:
            self._failure = error
            owners = {item.owner for room in self._waiting.values() for item in room.drain()}
            while not self._calls.empty():
                _, done, errors = self._calls.get()
                errors.append(error)
                done.set()
        for owner in owners:
            owner.deliver(error)
