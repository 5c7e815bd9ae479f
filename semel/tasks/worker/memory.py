"""The models in memory: each is loaded once for all threads that need it, and none is unloaded while it is in use."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from semel.errors import ModelLoadError
from semel.log import get_log
from semel.tasks.worker.embed import LoadedModel

log = get_log("models")

_PATIENCE_S = 10.0
"""A model that has waited this long for memory blocks new work on the loaded ones, which might never be idle."""


@dataclass
class _Load:
    """A load under way; `error` is what it failed with."""

    error: Exception | None = None


class ModelMemory:
    """Loads models when they are first needed, and unloads idle ones to make room. Any thread may call it.

    Args:
        max_bytes: of weights that may be in memory; None for no bound. A model counts from the start of its load until
            it is unloaded.
        weight_bytes: returns the size of a model's weights; it may download them.
        load, unload: called in the thread that needs the model, and never while other threads are kept waiting.
    """

    def __init__(
        self,
        *,
        max_bytes: int | None,
        weight_bytes: Callable[[str], int],
        load: Callable[[str], LoadedModel],
        unload: Callable[[LoadedModel], None],
    ) -> None:
        self._max_bytes = max_bytes
        self._weight_bytes = weight_bytes
        self._load = load
        self._unload = unload
        self._loaded: dict[str, LoadedModel] = {}
        self._loading: dict[str, _Load] = {}
        self._bytes: dict[str, int] = {}  # of the models that are loaded or being loaded
        self._leaving_bytes = 0  # of the models that are being unloaded
        self._users: dict[str, int] = {}
        self._used_at: dict[str, float] = {}
        self._changed = threading.Condition()
        self._blocked_for: str | None = None  # the model that new work on loaded ones waits for

    @contextmanager
    def using(self, name: str) -> Iterator[LoadedModel]:
        """A model, which is loaded if it is not in memory, and is not unloaded within the block.

        One thread loads it. The others that need it wait for that load, and get its error if it fails.

        Raises whatever `weight_bytes` and `load` raise, and ModelLoadError if the model never fits.
        """
        model = self._take(name)
        try:
            yield model
        finally:
            with self._changed:
                self._users[name] -= 1
                self._used_at[name] = time.monotonic()
                self._changed.notify_all()

    def loaded(self) -> list[LoadedModel]:
        """The models in memory, in the order in which they were loaded."""
        return list(self._loaded.values())

    def _take(self, name: str) -> LoadedModel:
        """A model in memory that counts as in use. Raises as `using`."""
        with self._changed:
            while name in self._loading or (name in self._loaded and self._blocked_for is not None):
                load = self._loading.get(name)
                self._changed.wait()
                if load is not None and load.error is not None:
                    raise load.error
            if name in self._loaded:
                self._users[name] += 1
                return self._loaded[name]
            self._loading[name] = _Load()
        try:
            self._reserve(name)
            model = self._load(name)
        except BaseException as error:
            self._end_failed(name, error)
            raise
        with self._changed:
            self._loaded[name] = model
            self._users[name] = 1
            del self._loading[name]
            self._changed.notify_all()
        return model

    def _end_failed(self, name: str, error: BaseException) -> None:
        """Hand the error of a load to the threads that wait for it. An interrupt is not theirs: one of them loads."""
        with self._changed:
            self._loading.pop(name).error = error if isinstance(error, Exception) else None
            self._bytes.pop(name, None)
            self._changed.notify_all()

    def _reserve(self, name: str) -> None:
        """Count a model's bytes as taken, as soon as they fit; idle models are unloaded for it.

        Raises:
            ModelLoadError: the model never fits.
        """
        if self._max_bytes is None:
            return
        size, since = self._weight_bytes(name), time.monotonic()
        if size > self._max_bytes:
            raise ModelLoadError(
                f"model {name!r} has {size:,} bytes of weights, and SEMEL_MAX_MODEL_BYTES allows "
                f"{self._max_bytes:,}: raise it, or serve this model on another machine"
            )
        try:
            while (idle := self._reserve_or_take_idle(name, size, self._max_bytes, since=since)) is not None:
                self._unload_idle(*idle, for_model=name)
        finally:
            with self._changed:
                if self._blocked_for == name:
                    self._blocked_for = None
                self._changed.notify_all()

    def _reserve_or_take_idle(
        self, name: str, size: int, max_bytes: int, *, since: float
    ) -> tuple[LoadedModel, int] | None:
        """Wait until a model fits and reserve its bytes, or until another model must go: return that one, and its size.

        A model that has waited for long enough (since `since`) goes before the loaded ones.
        """
        with self._changed:
            while True:
                if self._blocked_for in (None, name):
                    kept = sum(self._bytes.values())
                    if kept + self._leaving_bytes + size <= max_bytes:
                        self._bytes[name] = size
                        return None
                    idle = [other for other in self._loaded if not self._users[other]]
                    if kept + size > max_bytes and idle:
                        oldest = min(idle, key=lambda other: self._used_at[other])
                        self._leaving_bytes += self._bytes[oldest]
                        return self._loaded.pop(oldest), self._bytes.pop(oldest)
                self._changed.wait(_PATIENCE_S)
                if self._blocked_for is None and time.monotonic() - since >= _PATIENCE_S:
                    self._blocked_for = name

    def _unload_idle(self, model: LoadedModel, size: int, *, for_model: str) -> None:
        try:
            self._unload(model)
        finally:
            with self._changed:
                self._leaving_bytes -= size
                self._changed.notify_all()
        log.info("idle model unloaded", model=model.backend.name, bytes=size, for_model=for_model)
