"""Natural batching: calls that arrive while one is under way go together into the next one.

Alone, a call waits for nobody. Under load, many calls share one transaction, one message or one round trip, and the
load itself sets their number.
"""

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class Together(Generic[T, R]):
    """Runs a function on the items of many callers at once, in a thread of its own.

    Args:
        name: of the thread.
        run: receives items in the order of their arrival, and returns one result or exception for each. If it raises,
            each item is run again alone, so that an item fails alone: after an error, nothing of the call may remain.
        most: items in one call.
        threads: calls that may run at once.
    """

    def __init__(
        self, name: str, run: Callable[[Sequence[T]], Sequence[R | Exception]], *, most: int, threads: int = 1
    ) -> None:
        self._name = name
        self._run = run
        self._most = most
        self._arrived: queue.SimpleQueue[tuple[T, Future[R]] | None] = queue.SimpleQueue()
        self._closed = False
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._loop, name=name, daemon=True) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    def submit(self, item: T) -> "Future[R]":
        """Hand over an item; the future has its result. Raises RuntimeError after `close`."""
        future: Future[R] = Future()
        with self._lock:
            if self._closed:
                raise RuntimeError(f"{self._name} is closed")
            self._arrived.put((item, future))
        return future

    def close(self) -> None:
        """Run what has arrived, then end."""
        with self._lock:
            if not self._closed:
                self._closed = True
                for _ in self._threads:
                    self._arrived.put(None)
        for thread in self._threads:
            thread.join()

    def _loop(self) -> None:
        while (first := self._arrived.get()) is not None:
            batch, ends = [first], False
            while len(batch) < self._most and not ends:
                try:
                    more = self._arrived.get_nowait()
                except queue.Empty:
                    break
                ends = more is None
                if more is not None:
                    batch.append(more)
            self._run_batch([(item, future) for item, future in batch if future.set_running_or_notify_cancel()])
            if ends:
                return

    def _run_batch(self, batch: Sequence[tuple[T, "Future[R]"]]) -> None:
        if not batch:
            return
        try:
            results = self._run([item for item, _ in batch])
            if len(results) != len(batch):
                raise RuntimeError(f"{self._name}: {len(results)} results for {len(batch)} items")
        except Exception as error:  # noqa: BLE001  # raised again in the thread that waits
            if len(batch) == 1:
                batch[0][1].set_exception(error)
                return
            for each in batch:
                self._run_batch([each])
            return
        for (_, future), result in zip(batch, results, strict=True):
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)
