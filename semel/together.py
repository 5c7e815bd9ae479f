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
    """

    def __init__(self, name: str, run: Callable[[Sequence[T]], Sequence[R | Exception]], *, most: int) -> None:
        self._run = run
        self._most = most
        self._arrived: queue.SimpleQueue[tuple[T, Future[R]] | None] = queue.SimpleQueue()
        self._closed = False
        self._thread = threading.Thread(target=self._loop, name=name, daemon=True)
        self._thread.start()

    def submit(self, item: T) -> "Future[R]":
        """Hand over an item; the future has its result. Raises RuntimeError after `close`."""
        if self._closed:
            raise RuntimeError(f"{self._thread.name} is closed")
        future: Future[R] = Future()
        self._arrived.put((item, future))
        return future

    def close(self) -> None:
        """Run what has arrived, then end."""
        self._closed = True
        self._arrived.put(None)
        self._thread.join()

    def _loop(self) -> None:
        while (first := self._arrived.get()) is not None:
            batch, ends = [first], False
            while len(batch) < self._most and not self._arrived.empty():
                more = self._arrived.get()
                if more is None:
                    ends = True
                    break
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
                raise RuntimeError(f"{self._thread.name}: {len(results)} results for {len(batch)} items")
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
