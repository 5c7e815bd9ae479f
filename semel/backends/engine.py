"""The engine: merges the texts of many task threads into batches and runs them on the one device thread."""

import queue
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from semel.backends.base import Backend
from semel.backends.batching import Budgets, Item
from semel.backends.calls import Call
from semel.backends.hanging import Hang, LoadSteps, slow_batch
from semel.backends.isolation import Isolation
from semel.backends.shared import turns
from semel.backends.submission import NOT_WANTED, EngineStats, Submission, Unread, batch_span, deliver
from semel.backends.waiting import Waiting
from semel.errors import BackendError
from semel.log import get_log
from semel.tracing import span
from semel.values.text import Input, ItemError, Lane
from semel.values.variant import AS_DEFINED, Variant

log = get_log("engine")


def _unobserved(_first: object, _second: object) -> None: ...


class Engine:
    """Runs the batches of all models of a device on one thread. Any thread may call it.

    `stats` holds the counters; each batch replaces the whole value.

    Args:
        max_batch_tokens: padded tokens in a batch; None takes what suits each backend.
        observe: called with `tokenise` or `device`, and the seconds that this stage took.
        on_batch: called with the number of texts and of padded tokens of each batch.
    """

    def __init__(
        self,
        *,
        max_batch_tokens: int | None = None,
        observe: Callable[[str, float], None] = _unobserved,
        on_batch: Callable[[int, int], None] = _unobserved,
    ) -> None:
        self._observe, self._on_batch = observe, on_batch
        self._budgets = Budgets(max_batch_tokens)
        self._isolation = Isolation(self._budgets, on_halving=self._count_halving)
        self._waiting = Waiting(self._budgets)
        self._calls: queue.SimpleQueue[Call] = queue.SimpleQueue()
        self._in_hand: tuple[float, int, list[Item]] | None = None  # start, padded tokens, items of the running batch
        self._steps = LoadSteps()
        self._changed = threading.Condition()
        self._unread = Unread(self._changed)
        self._stopping = False
        self._failure: BackendError | None = None
        self.stats = EngineStats()
        self._thread = threading.Thread(target=self._run, name="device", daemon=True)
        self._thread.start()

    def load(self, backend: Backend) -> str:
        """Load a model, check its health and warm it up; returns what the warm-up did.

        The model is loaded in a thread of its own if its backend allows it, and batches of other models run meanwhile.
        The caller waits.

        Raises:
            ModelLoadError: as `Backend.load`.
            BackendError: the device computes wrong numbers, or is lost.
        """
        if self._failure is not None:
            raise self._failure
        if backend.loads_in_any_thread:
            Call(lambda: self._load(backend)).run_aside(f"load {backend.name}")
        warm_ups: list[str] = []
        self._call(lambda: warm_ups.append(self._start(backend)))
        return warm_ups[0]

    def unload(self, backend: Backend) -> None:
        """Free a model's memory, between two batches. Texts that still wait for it fail.

        Raises BackendError: the device is lost.
        """
        self._call(lambda: self._unload(backend))

    def _call(self, function: Callable[[], None]) -> None:
        """Run a function on the device thread and wait for it. Raises what it raises, or BackendError."""
        call = Call(function)
        with self._changed:
            if self._failure is not None:
                raise self._failure
            self._calls.put(call)
            self._changed.notify()
        call.wait()

    @property
    def failure(self) -> BackendError | None:
        """Why the device thread has ended before `close`; None while it runs."""
        if self._failure is None and not self._thread.is_alive():
            self._fail_waiting(BackendError("the device thread ended without an error"))  # or callers wait for ever
        return self._failure

    def hangs(self, *, after_s: float, factor: float) -> Hang | None:
        """Return the batch or the step of a load that takes far too long, if there is one.

        Args:
            after_s: a batch never hangs before this time; the first batch, and a step, never before ten times this.
            factor: a batch hangs after this many times the usual time for its number of tokens.
        """
        hang, in_hand = None, self._in_hand
        if in_hand is not None:
            taken_s = time.perf_counter() - in_hand[0]
            hang = slow_batch(taken_s, in_hand[1], usual=self.stats, after_s=after_s, factor=factor)
        return hang or self._steps.hanging(after_s=after_s)

    def submit(
        self,
        backend: Backend,
        texts: Sequence[Input],
        *,
        prompt: str = "",
        variant: Variant = AS_DEFINED,
        lane: Lane = Lane.BULK,
        label: object = None,
        alone: bool = False,
        wanted: Callable[[int], bool] | None = None,
    ) -> Submission:
        """Tokenise in the caller's thread and queue the texts for the device.

        Args:
            backend: one that `load` loaded.
            texts: non-empty strings, or pairs of them for a cross-encoder.
            prompt: put before each text.
            variant: where texts are cut.
            lane: interactive texts go first.
            label: identifies the owner of the texts in `in_hand`.
            alone: run the texts in batches of their own, because one of them may have killed a device.
            wanted: asked for the position of each text when its turn has come; one that nobody wants any more gets the
                error `NOT_WANTED`. It must be quick.

        Raises:
            BadInputError: as `Backend.tokenize`.
            BackendError: the device is lost.
        """
        unread = self._unread if lane is Lane.BULK and not alone else None
        submission = Submission(len(texts), label=label, alone=alone, wanted=wanted, unread=unread)
        for start in range(0, len(texts), backend.tokenize_at_once):
            started = time.perf_counter()
            part = texts[start : start + backend.tokenize_at_once]
            with span("semel.tokenise", texts=len(part)):
                tokens = backend.tokenize(part, prompt=prompt, variant=variant)
            self._observe("tokenise", time.perf_counter() - started)
            turns.give_way()
            items = [Item(each, submission, start + i) for i, each in enumerate(tokens)]
            with self._changed:
                if self._failure is not None:
                    raise self._failure
                self._waiting.add(lane, backend, submission, items)
                self._changed.notify()
        return submission

    def hurry(self, backend: Backend, texts: Collection[tuple[Submission, int]]) -> None:
        """Let texts that wait in the bulk lane go before it: an interactive request waits for them too.

        Args:
            texts: submission and position of each; those that have reached the device are ignored.
        """
        with self._changed:
            self._waiting.hurry(backend, texts)

    def in_hand(self) -> set[object]:
        """Return the labels of the texts in the running batch."""
        batch = self._in_hand
        return set() if batch is None else {item.owner.label for item in batch[2]}

    def close(self) -> None:
        """Stop after the running batch; texts that still wait fail with BackendError."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join()

    # The device thread

    def _run(self) -> None:
        try:
            while self._step():
                pass
        except BaseException as error:  # an unseen end would leave every caller waiting for ever
            self._fail_waiting(_stopped_by(error))
            log.exception("the device thread stopped")

    def _step(self) -> bool:
        """Run the next call or batch; returns False when the thread is to end."""
        with self._changed:
            self._changed.wait_for(self._has_work)
            stopping, work = self._stopping, None
            if not stopping and self._calls.empty():
                work = self._next_batch()
        if stopping:
            self._fail_waiting(BackendError("the engine was stopped"))
            return False
        if work is None:
            self._calls.get().run()
            return True
        return not work[1] or self._run_batch_or_stop(*work)

    def _has_work(self) -> bool:
        if self._stopping or not self._calls.empty() or self._waiting.has_urgent:
            return True
        return bool(self._waiting) and not self._unread.is_much

    def _load(self, backend: Backend) -> None:
        with self._steps.step(f"loading model {backend.name!r}"):
            backend.load()

    def _start(self, backend: Backend) -> str:
        """Prepare a model for its first batch, on the device thread; returns what the warm-up did."""
        if not backend.loads_in_any_thread:
            self._load(backend)
        try:
            with self._steps.step(f"the health check of model {backend.name!r}"):
                backend.health_check()
            self._budgets.add(backend)
            with self._steps.step(f"the warm-up of model {backend.name!r}"):
                return backend.warm_up()
        except BaseException:
            self._unload(backend)  # or its weights would stay in memory
            raise

    def _unload(self, backend: Backend) -> None:
        """On the device thread, so that no batch of this model can be picked meanwhile."""
        with self._changed:
            dropped = self._waiting.drain(backend)
        for owner in dropped:
            owner.deliver(BackendError("the model was unloaded while texts waited for it"))
        self._budgets.remove(backend)
        with self._steps.step(f"unloading model {backend.name!r}"):
            backend.close()

    def _next_batch(self) -> tuple[Backend, list[Item]]:
        backend, batch = self._waiting.next_batch()
        unwanted = [item for item in batch if not item.owner.wants(item.index)]
        if unwanted:
            deliver(unwanted, [NOT_WANTED] * len(unwanted))
            batch = [item for item in batch if item not in unwanted]
        return backend, batch

    def _run_batch_or_stop(self, backend: Backend, items: list[Item]) -> bool:
        """Return False if the device is lost. Every owner gets the error, or it would wait for ever."""
        try:
            self._run_batch(backend, items)
        except BaseException as error:  # noqa: BLE001  # whatever it is, it reaches the owners and ends this thread
            lost = error if isinstance(error, BackendError) else _stopped_by(error)
            for item in items:
                item.owner.deliver(lost)
            self._fail_waiting(lost)
            return False
        return True

    def _run_batch(self, backend: Backend, items: list[Item]) -> None:
        """Compute a batch and deliver its rows. Raises BackendError if the device is lost."""
        padded = max(item.length for item in items) * len(items)
        self._in_hand = (started := time.perf_counter(), padded, items)
        try:
            with batch_span(backend, items):
                results = self._isolation.compute(backend, items)
            seconds = time.perf_counter() - started
            self._count(backend.name, items, padded, seconds)
            self._budgets.measured(backend, padded=padded, seconds=seconds)
            if all(isinstance(result, ItemError) for result in results):
                backend.health_check()  # a known text shows whether the texts are bad or the device is lost
        finally:
            self._in_hand = None
        deliver(items, results, device_s=seconds)

    def _count_halving(self) -> None:
        self.stats = replace(self.stats, memory_halvings=self.stats.memory_halvings + 1)

    def _count(self, model: str, items: list[Item], padded: int, seconds: float) -> None:
        self._observe("device", seconds)
        self._on_batch(len(items), padded)
        n, tokens = len(items), sum(item.length for item in items)
        self.stats = self.stats.after_batch(model, texts=n, tokens=tokens, padded_tokens=padded, seconds=seconds)

    def _fail_waiting(self, error: BackendError) -> None:
        """Refuse what comes from now on with `error`, and fail what waits with it."""
        with self._changed:
            self._failure = error
            owners = self._waiting.drain()
            while not self._calls.empty():
                self._calls.get().fail(error)
        for owner in owners:
            owner.deliver(error)


def _stopped_by(error: BaseException) -> BackendError:
    return BackendError(f"the device thread stopped: {type(error).__name__}: {error}")
