"""The device thread never ends unseen: whatever goes wrong in it, waiters get an error and a watcher can see it."""

import gc
import threading
import weakref
from collections.abc import Sequence

import pytest

from semel.backends.base import Tokens
from semel.backends.engine import Engine
from semel.backends.fake import FakeBackend, FakeOptions
from semel.errors import BackendError, DeviceMemoryError
from semel.values.vectors import Vectors

TEXTS = [f"{'word ' * (i % 40)}{i}" for i in range(3000)]


def loaded(engine: Engine, name: str = "m") -> FakeBackend:
    backend = FakeBackend(name, FakeOptions(), device="cpu")
    engine.load(backend)
    return backend


def serves(engine: Engine, backend: FakeBackend) -> bool:
    """Whether the device thread still computes."""
    return sum(len(part.indices) for part in engine.submit(backend, ["one", "two"])) == 2


def test_a_model_with_leftovers_of_a_cancelled_submission_can_be_unloaded() -> None:
    engine = Engine()
    other = loaded(engine, "other")
    for _ in range(20):
        backend = loaded(engine)
        submission = engine.submit(backend, TEXTS)
        next(iter(submission))
        submission.cancel()
        engine.unload(backend)
    assert engine.failure is None
    assert serves(engine, other)
    engine.close()


def test_texts_that_still_wait_when_their_model_is_unloaded_fail() -> None:
    engine = Engine()
    backend = loaded(engine)
    entered, may_go_on = threading.Event(), threading.Event()

    class Holding(FakeBackend):
        loads_in_any_thread = False

        def load(self) -> None:
            entered.set()
            assert may_go_on.wait(10)

    holding = threading.Thread(target=engine.load, args=(Holding("h", FakeOptions(), device="cpu"),))
    holding.start()
    assert entered.wait(10)
    unloading = threading.Thread(target=engine.unload, args=(backend,))
    submission = engine.submit(backend, ["left over"])
    unloading.start()
    may_go_on.set()
    unloading.join(10)
    with pytest.raises(BackendError, match="was unloaded"):
        list(submission)
    holding.join(10)
    engine.close()


def test_an_error_outside_a_batch_ends_the_engine_with_an_error_for_everyone(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine()
    backend = loaded(engine)
    monkeypatch.setattr(engine, "_next_batch", lambda: {}["nothing"])
    with pytest.raises(BackendError, match="the device thread stopped: KeyError"):
        list(engine.submit(backend, ["a text"]))
    assert engine.failure is not None
    with pytest.raises(BackendError, match="the device thread stopped"):
        engine.submit(backend, ["another"])
    engine.close()


def test_a_model_that_fails_to_warm_up_is_closed_and_forgotten() -> None:
    closed = threading.Event()

    class Cold(FakeBackend):
        def warm_up(self) -> str:
            raise DeviceMemoryError("no memory for a full batch")

        def close(self) -> None:
            closed.set()

    engine = Engine()
    backend = Cold("m", FakeOptions(), device="cpu")
    kept = weakref.ref(backend)
    with pytest.raises(DeviceMemoryError):
        engine.load(backend)
    assert closed.is_set()
    del backend
    gc.collect()
    assert kept() is None, "its weights stay in memory"
    engine.close()


def test_a_framework_that_ends_the_device_thread_ends_the_engine_with_an_error_for_everyone() -> None:
    class Exiting(FakeBackend):
        exits = False

        def forward(self, batch: Sequence[Tokens]) -> Vectors:
            if self.exits:
                raise SystemExit(3)
            return super().forward(batch)

    engine = Engine()
    backend = Exiting("m", FakeOptions(), device="cpu")
    engine.load(backend)
    backend.exits = True
    with pytest.raises(BackendError, match="the device thread stopped: SystemExit: 3"):
        list(engine.submit(backend, ["a text"]))
    assert engine.failure is not None
    engine.close()


def test_a_device_thread_that_is_gone_without_a_trace_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Engine, "_run", lambda _engine: None)
    engine = Engine()
    engine._thread.join()
    submission = engine.submit(FakeBackend("m", FakeOptions(), device="cpu"), ["a text"])
    assert "the device thread ended" in str(engine.failure)
    with pytest.raises(BackendError, match="the device thread ended"):
        list(submission)


def test_an_exit_in_a_call_reaches_the_caller_as_an_error() -> None:
    class Exiting(FakeBackend):
        def load(self) -> None:
            raise SystemExit(3)

    engine = Engine()
    for aside in (True, False):
        backend = Exiting("m", FakeOptions(), device="cpu")
        backend.loads_in_any_thread = aside
        with pytest.raises(BackendError, match="it ended with SystemExit: 3"):
            engine.load(backend)
    assert serves(engine, loaded(engine))
    engine.close()
