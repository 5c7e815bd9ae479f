"""The models in memory: one load for all who need a model, next to everything else, within the bound."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest

from semel.errors import ModelLoadError
from semel.tasks.worker.embed import LoadedModel
from semel.tasks.worker.memory import ModelMemory
from tests.support.processes import wait_until


class Models:
    """Models of 40 bytes, whose loads the test can hold or make fail, and a memory for them.

    Attributes:
        loads: the names in the order in which their loads began.
        errors: name → what its load raises.
        gates: name → what its load waits for.
        peak: the most models that were in memory at once, those that were being loaded or unloaded included.
    """

    def __init__(self, max_bytes: int | None) -> None:
        self.loads: list[str] = []
        self.errors: dict[str, BaseException] = {}
        self.gates: dict[str, threading.Event] = {}
        self.in_memory = Counter[str]()
        self.peak = 0
        self._lock = threading.Lock()
        self.memory = ModelMemory(max_bytes=max_bytes, weight_bytes=lambda _: 40, load=self._load, unload=self._unload)

    def _load(self, name: str) -> LoadedModel:
        with self._lock:
            self.loads.append(name)
            self.in_memory[name] += 1
            self.peak = max(self.peak, self.in_memory.total())
        if name in self.gates:
            assert self.gates[name].wait(10)
        if name in self.errors:
            with self._lock:
                self.in_memory[name] -= 1
            raise self.errors.pop(name)
        made: LoadedModel = SimpleNamespace(backend=SimpleNamespace(name=name), unloaded=False)  # type: ignore[assignment]
        return made

    def _unload(self, model: LoadedModel) -> None:
        model.unloaded = True  # type: ignore[attr-defined]
        with self._lock:
            self.in_memory[model.backend.name] -= 1

    def use(self, name: str) -> bool:
        """Use a model for a moment; returns whether it stayed in memory."""
        with self.memory.using(name) as model:
            threading.Event().wait(0.002)
            return not model.unloaded  # type: ignore[attr-defined, no-any-return]

    def hold(self, name: str) -> threading.Event:
        """Let the loads of a model wait; returns what they wait for."""
        self.gates[name] = threading.Event()
        return self.gates[name]

    def waiting(self) -> int:
        """The number of threads that wait for the memory."""
        return len(self.memory._changed._waiters)  # type: ignore[attr-defined]

    def names(self) -> list[str]:
        return [model.backend.name for model in self.memory.loaded()]


class Crowd:
    """Threads that do something each, and what each returned or raised."""

    def __init__(self) -> None:
        self._threads: list[threading.Thread] = []
        self.results: list[object] = []

    def add(self, function: Callable[[], object]) -> threading.Thread:
        def run() -> None:
            try:
                self.results.append(function())
            except BaseException as error:
                self.results.append(error)

        thread = threading.Thread(target=run)
        self._threads.append(thread)
        thread.start()
        return thread

    def join(self) -> None:
        for thread in self._threads:
            thread.join(20)
            assert not thread.is_alive()


@pytest.fixture
def crowd() -> Iterator[Crowd]:
    made = Crowd()
    yield made
    made.join()


def test_a_model_that_loads_blocks_no_other(crowd: Crowd) -> None:
    models = Models(None)
    gate = models.hold("slow")
    crowd.add(lambda: models.use("slow"))
    wait_until(lambda: models.loads == ["slow"])
    for _ in range(2):
        asked = crowd.add(lambda: models.use("quick"))
        asked.join(5)
        assert not asked.is_alive(), "it waits for another model"
    assert models.names() == ["quick"]
    gate.set()
    crowd.join()
    assert models.names() == ["quick", "slow"]


def test_an_unload_blocks_no_other(crowd: Crowd) -> None:
    models, unloading, gate = Models(80), threading.Event(), threading.Event()

    def unload(_model: LoadedModel) -> None:
        unloading.set()
        assert gate.wait(10)

    models.memory._unload = unload
    models.use("a")
    models.use("b")
    crowd.add(lambda: models.use("c"))
    assert unloading.wait(10)
    asked = crowd.add(lambda: models.use("b"))
    asked.join(5)
    assert not asked.is_alive()
    assert models.loads == ["a", "b"], "the model that goes still takes its bytes"
    gate.set()
    crowd.join()
    assert models.names() == ["b", "c"]


def test_the_error_of_a_load_reaches_all_who_wait_for_it_and_the_next_one_loads_again(crowd: Crowd) -> None:
    models, error = Models(None), ModelLoadError("no such folder")
    gate, models.errors["m"] = models.hold("m"), error
    for _ in range(4):
        crowd.add(lambda: models.use("m"))
    wait_until(lambda: models.waiting() == 3)
    gate.set()
    crowd.join()
    assert crowd.results == [error] * 4
    assert models.loads == ["m"]
    assert models.use("m")


def test_an_interrupt_of_the_thread_that_loads_is_not_the_error_of_the_others(crowd: Crowd) -> None:
    models = Models(40)
    gate, models.errors["m"] = models.hold("m"), KeyboardInterrupt()
    for _ in range(3):
        crowd.add(lambda: models.use("m"))
    wait_until(lambda: models.waiting() == 2)
    gate.set()
    crowd.join()
    assert sorted(map(str, crowd.results)) == ["", "True", "True"]
    assert models.loads == ["m", "m"]


def test_two_models_load_at_the_same_time_if_both_fit(crowd: Crowd) -> None:
    models = Models(80)
    gates = [models.hold(name) for name in ("a", "b")]
    for name in ("a", "b"):
        crowd.add(lambda name=name: models.use(name))  # type: ignore[misc]
    wait_until(lambda: sorted(models.loads) == ["a", "b"])
    for gate in gates:
        gate.set()


def test_a_model_that_is_being_loaded_takes_its_bytes(crowd: Crowd) -> None:
    models = Models(79)
    gate = models.hold("a")
    crowd.add(lambda: models.use("a"))
    wait_until(lambda: models.loads == ["a"])
    crowd.add(lambda: models.use("b"))
    wait_until(lambda: models.waiting() == 1)
    assert models.loads == ["a"]
    gate.set()
    crowd.join()
    assert (models.loads, models.names(), models.peak) == (["a", "b"], ["b"], 1)


def test_a_load_that_fails_gives_its_bytes_back(crowd: Crowd) -> None:
    models = Models(40)
    models.errors["a"] = ModelLoadError("no such folder")
    with pytest.raises(ModelLoadError):
        models.use("a")
    assert models.use("b")


def test_the_bound_holds_and_no_model_goes_while_it_is_in_use(crowd: Crowd) -> None:
    models = Models(100)

    def use_all(offset: int) -> bool:
        return all(models.use("abcd"[(offset + i * i) % 4]) for i in range(25))

    for offset in range(6):
        crowd.add(lambda offset=offset: use_all(offset))  # type: ignore[misc]
    crowd.join()
    assert crowd.results == [True] * 6
    assert models.peak == 2
    assert models.in_memory.total() == len(models.names()) == 2
