"""Loading a model: in its own thread where the backend allows, next to the batches of others, and never unwatched."""

import threading
from collections.abc import Callable, Iterator

import pytest

from semel.backends.engine import Engine
from semel.backends.fake import FakeBackend, FakeOptions
from semel.errors import BackendError, ModelLoadError
from tests.support.processes import wait_until


class Gated(FakeBackend):
    """Waits in one step until the test opens the gate; records the thread of each step."""

    def __init__(self, waits_in: str = "", *, aside: bool = True) -> None:
        super().__init__("m", FakeOptions(), device="cpu")
        self.loads_in_any_thread = aside
        self.waits_in = waits_in
        self.threads: dict[str, str] = {}
        self.entered, self.gate = threading.Event(), threading.Event()

    def _pass(self, step: str) -> None:
        self.threads[step] = threading.current_thread().name
        if step == self.waits_in:
            self.entered.set()
            assert self.gate.wait(10)

    def load(self) -> None:
        self._pass("load")

    def health_check(self) -> None:
        self._pass("health_check")

    def warm_up(self) -> str:
        self._pass("warm_up")
        return "warm"

    def close(self) -> None:
        self._pass("close")


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = Engine()
    yield engine
    engine.close()


@pytest.fixture
def start(engine: Engine) -> Iterator[Callable[[Callable[[], object], Gated], None]]:
    """Starts a call of the engine in a thread, waits until it is in its gated step, and opens the gate at the end."""
    started: list[tuple[threading.Thread, Gated]] = []

    def begin(call: Callable[[], object], backend: Gated) -> None:
        thread = threading.Thread(target=call)
        started.append((thread, backend))
        thread.start()
        assert backend.entered.wait(10)

    yield begin
    for thread, backend in started:
        backend.gate.set()
        thread.join(10)


def computes(engine: Engine, backend: FakeBackend) -> bool:
    """Whether the engine answers within some seconds."""
    answered = threading.Event()
    submission = engine.submit(backend, ["one", "two"])
    threading.Thread(target=lambda: (list(submission), answered.set()), daemon=True).start()
    return answered.wait(5)


def test_batches_of_other_models_run_while_a_model_loads(engine: Engine, start: Callable[..., None]) -> None:
    other, slow = FakeBackend("other", FakeOptions(), device="cpu"), Gated("load")
    engine.load(other)
    start(lambda: engine.load(slow), slow)
    assert computes(engine, other)
    assert "warm_up" not in slow.threads
    slow.gate.set()
    wait_until(lambda: slow.threads.get("warm_up") == "device")
    assert computes(engine, slow)


def test_a_model_that_may_load_anywhere_gets_a_thread_that_ends_with_the_load(engine: Engine) -> None:
    backend = Gated()
    assert engine.load(backend) == "warm"
    assert backend.threads == {"load": "load m", "health_check": "device", "warm_up": "device"}
    wait_until(lambda: "load m" not in {thread.name for thread in threading.enumerate()})


def test_a_model_that_must_load_on_the_device_thread_does(engine: Engine) -> None:
    backend = Gated(aside=False)
    assert engine.load(backend) == "warm"
    assert set(backend.threads.values()) == {"device"}


@pytest.mark.parametrize("aside", [True, False])
def test_an_error_of_a_load_reaches_its_caller_and_nobody_else(engine: Engine, aside: bool) -> None:
    class Missing(FakeBackend):
        loads_in_any_thread = aside

        def load(self) -> None:
            raise ModelLoadError("no such folder")

    with pytest.raises(ModelLoadError, match="no such folder"):
        engine.load(Missing("m", FakeOptions(), device="cpu"))
    other = FakeBackend("other", FakeOptions(), device="cpu")
    engine.load(other)
    assert computes(engine, other)


def test_nothing_is_loaded_for_a_device_that_is_lost(engine: Engine) -> None:
    engine.close()
    backend = Gated()
    with pytest.raises(BackendError, match="stopped"):
        engine.load(backend)
    assert backend.threads == {}


@pytest.mark.parametrize("aside", [True, False])
@pytest.mark.parametrize(
    ("step", "what"),
    [
        ("load", "loading model 'm'"),
        ("health_check", "the health check of model 'm'"),
        ("warm_up", "the warm-up of model 'm'"),
    ],
)
def test_a_step_of_a_load_that_does_not_end_is_seen(
    engine: Engine, start: Callable[..., None], step: str, what: str, aside: bool
) -> None:
    backend = Gated(step, aside=aside)
    assert engine.hangs(after_s=0, factor=20) is None
    start(lambda: engine.load(backend), backend)
    hang = engine.hangs(after_s=0, factor=20)
    assert hang is not None
    assert hang.what == what
    assert engine.hangs(after_s=60, factor=20) is None
    backend.gate.set()
    wait_until(lambda: engine.hangs(after_s=0, factor=20) is None)


def test_an_unload_that_does_not_end_is_seen(engine: Engine, start: Callable[..., None]) -> None:
    backend = Gated("close")
    engine.load(backend)
    start(lambda: engine.unload(backend), backend)
    hang = engine.hangs(after_s=0, factor=20)
    assert hang is not None
    assert hang.what == "unloading model 'm'"


def test_a_load_that_does_not_end_is_seen_while_batches_run(engine: Engine, start: Callable[..., None]) -> None:
    batch, load = Gated("forward"), Gated("load")
    batch.forward = lambda tokens: batch._pass("forward") or FakeBackend.forward(batch, tokens)  # type: ignore[method-assign, assignment, func-returns-value]
    engine.load(batch)
    start(lambda: list(engine.submit(batch, ["text"])), batch)
    start(lambda: engine.load(load), load)
    engine.stats = type(engine.stats)(padded_tokens=1, busy_s=1000.0)  # such a batch may take its time
    hang = engine.hangs(after_s=0, factor=20)
    assert hang is not None
    assert hang.what == "loading model 'm'"
