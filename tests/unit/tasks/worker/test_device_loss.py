"""A worker whose device is lost or hangs ends itself, in an orderly way if it can."""

import os
import signal
from types import SimpleNamespace

import pytest

from semel.backends.hanging import Hang
from semel.errors import BackendError
from semel.tasks.worker import device_loss as device_loss_module
from semel.tasks.worker.device_loss import DeviceLoss, HangWatch


class Exited(BaseException):
    """The process ended."""


class System:
    """Stands in for `os`, `threading` and `faulthandler`, and writes down what is done to the process."""

    def __init__(self) -> None:
        self.done: list[object] = []
        self.timers: list[tuple[float, object, tuple[int, ...]]] = []

    def kill(self, pid: int, number: int) -> None:
        self.done.append((pid, number))

    def getpid(self) -> int:
        return os.getpid()

    def _exit(self, code: int) -> None:
        self.done.append(f"exit {code}")
        raise Exited

    def dump_traceback(self, *, all_threads: bool) -> None:
        self.done.append("dump of all threads" if all_threads else "dump")

    def Thread(self, *, target: object, args: tuple[object, ...]) -> SimpleNamespace:  # noqa: N802
        return SimpleNamespace(start=lambda: target(*args))  # type: ignore[operator]

    def Timer(self, after_s: float, function: object, args: tuple[int, ...]) -> SimpleNamespace:  # noqa: N802
        self.timers.append((after_s, function, args))
        return SimpleNamespace(daemon=False, start=lambda: self.done.append(f"last resort in {after_s:g} s"))


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch) -> System:
    made = System()
    for name in ("os", "threading", "faulthandler"):
        monkeypatch.setattr(device_loss_module, name, made)
    return made


class FakeEngine:
    """An engine whose work hangs, or not."""

    def __init__(self, hang: Hang | None, *, failure: BackendError | None = None) -> None:
        self._hang = hang
        self.failure = failure
        self.asked: list[tuple[float, float]] = []

    def hangs(self, *, after_s: float, factor: float) -> Hang | None:
        self.asked.append((after_s, factor))
        return self._hang


STUCK = Hang("a batch", 93.4)


def watch(system: System, engine: FakeEngine) -> HangWatch:
    return HangWatch(engine, DeviceLoss(), device="cuda:1", after_s=60, last_words=system.done.append)  # type: ignore[arg-type]


def test_a_lost_device_ends_the_process_as_a_signal_would(system: System) -> None:
    loss, error = DeviceLoss(), BackendError("the device is gone")
    loss.stop_worker(error)
    assert system.done == [(os.getpid(), signal.SIGTERM)]
    assert loss.error is error


def test_the_first_loss_counts_and_the_process_is_ended_once(system: System) -> None:
    loss, first = DeviceLoss(), BackendError("the first")
    for error in (first, BackendError("a later one")):
        loss.stop_worker(error)
    assert loss.error is first
    assert len(system.done) == 1


def test_a_device_that_works_is_left_alone(system: System) -> None:
    engine = FakeEngine(None)
    watch(system, engine).look()
    assert engine.asked == [(60, 20.0)]
    assert system.done == []


def test_a_device_thread_that_has_ended_stops_the_worker_in_order(system: System) -> None:
    engine = FakeEngine(None, failure=BackendError("the device thread stopped: KeyError: 'm'"))
    watch(system, engine).look()
    assert system.done == [(os.getpid(), signal.SIGTERM)]


def test_a_device_that_hangs_ends_the_process_after_its_last_words(system: System) -> None:
    with pytest.raises(Exited):
        watch(system, FakeEngine(STUCK)).look()
    dump, armed, words, ended = system.done
    assert (dump, armed, ended) == ("dump of all threads", "last resort in 5 s", "exit 70")
    assert isinstance(words, BackendError)
    assert str(words) == (
        "cuda:1 hangs: a batch has been running for 93 s; if it is slow and does not hang, raise SEMEL_HUNG_AFTER_S"
    )


@pytest.mark.parametrize("what", ["loading model 'm'", "the health check of model 'm'", "the warm-up of model 'm'"])
def test_the_last_words_name_what_hangs(system: System, what: str) -> None:
    with pytest.raises(Exited):
        watch(system, FakeEngine(Hang(what, 601.0))).look()
    assert f"cuda:1 hangs: {what} has been running for 601 s" in str(system.done[2])


def test_last_words_that_hang_do_not_keep_the_process(system: System) -> None:
    with pytest.raises(Exited):
        watch(system, FakeEngine(STUCK)).look()
    ((after_s, end, args),) = system.timers
    assert (after_s, args) == (5.0, (70,))
    with pytest.raises(Exited):
        end(*args)  # type: ignore[operator]
