"""The device thread never ends unseen: whatever goes wrong in it, waiters get an error and a watcher can see it."""

import gc
import threading
import weakref

import pytest

from semel.backends.engine import Engine
from semel.backends.fake import FakeBackend, FakeOptions
from semel.errors import BackendError, DeviceMemoryError

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
