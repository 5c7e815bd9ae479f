"""One batch on the device: a text that makes the model fail is found, and fails alone."""

from collections.abc import Callable
from typing import Any

import numpy as np

from semel.backends.base import Backend
from semel.backends.batching import Budgets, Item
from semel.backends.submission import Results
from semel.errors import BackendError, DeviceMemoryError, SemelError
from semel.log import get_log
from semel.values.text import ItemError
from semel.values.vectors import AnyVectors, sound_rows

log = get_log("engine")


class Isolation:
    """Computes batches, and halves those that fail.

    Args:
        budgets: shrink when memory runs out.
        on_halving: called for each batch that was too large for memory.
    """

    def __init__(self, budgets: Budgets, *, on_halving: Callable[[], None]) -> None:
        self._budgets = budgets
        self._on_halving = on_halving

    def compute(self, backend: Backend, items: list[Item]) -> Results:
        """Return one row or error for each item. A batch that fails is halved until the bad text is alone."""
        try:
            vectors = backend.forward([item.tokens for item in items])
        except DeviceMemoryError as error:
            self._halve_budget(backend, items)
            if len(items) == 1:
                return [ItemError.of(error)]
        except Exception as error:  # noqa: BLE001  # frameworks raise anything; it becomes the error of one text
            if len(items) == 1:
                code = error.code if isinstance(error, SemelError) else BackendError.code
                log.warning("a text makes the model fail", reason=str(error), tokens=items[0].length)
                return [ItemError(code, f"the model fails on this text: {error}")]
        else:
            return self._check(backend, items, vectors)
        half = len(items) // 2
        return [*self.compute(backend, items[:half]), *self.compute(backend, items[half:])]

    def _check(self, backend: Backend, items: list[Item], vectors: AnyVectors) -> Results:
        """Compute NaN and zero rows again alone, because padding by itself can cause them; an error if they stay."""
        unsound = np.flatnonzero(~sound_rows(vectors))
        if not len(unsound):
            return vectors
        results: list[Any] = list(vectors)
        for row in unsound:
            if len(items) == 1:
                return [ItemError("invalid_vector", "the model returns a NaN or zero vector for this text")]
            results[row] = self.compute(backend, [items[row]])[0]
        return results

    def _halve_budget(self, backend: Backend, items: list[Item]) -> None:
        """Allow smaller batches from now on, for texts as long as the longest of these."""
        longest = max(item.length for item in items)
        left = self._budgets.halve(backend, longest, padded=longest * len(items))
        self._on_halving()
        log.warning("out of memory: batches of texts this long become smaller", tokens=longest, max_batch_tokens=left)
