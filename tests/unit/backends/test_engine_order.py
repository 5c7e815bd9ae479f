"""The engine's order of work and its view of the running batch, with a device that waits for the test."""

import threading
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace

import pytest

from semel.backends import engine as engine_module
from semel.backends.base import Tokens
from semel.backends.engine import Engine
from semel.backends.fake import FakeBackend, FakeOptions
from semel.backends.hanging import Hang
from semel.backends.submission import EngineStats, Submission
from semel.errors import BackendError
from semel.values.text import Lane
from semel.values.vectors import Vectors

LONG = "w " * 4096
"""A text that fills a batch."""


class Gated(FakeBackend):
    """Runs a batch when the test opens the gate; records the models and sizes of its batches in `order`."""

    def __init__(self, name: str, order: list[str]) -> None:
        super().__init__(name, FakeOptions(max_tokens=5000), device="cpu")
        self.order = order
        self.gate = threading.Event()
        self.gate.set()
        self.running = threading.Event()
        self.closed = False

    def forward(self, batch: Sequence[Tokens]) -> Vectors:
        self.order.append(self.name)
        self.running.set()
        assert self.gate.wait(10)
        return super().forward(batch)

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def order() -> list[str]:
    return []


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = Engine()
    yield engine
    engine.close()


@pytest.fixture
def model(engine: Engine, order: list[str]) -> Iterator[Callable[[str], Gated]]:
    """Loads models by name; opens their gates at the end."""
    made: list[Gated] = []

    def load(name: str) -> Gated:
        made.append(Gated(name, order))
        engine.load(made[-1])
        return made[-1]

    yield load
    for backend in made:
        backend.gate.set()


def hold(engine: Engine, backend: Gated, *, label: object = None) -> Submission:
    """Keep the device busy with one text; then forget what ran before."""
    backend.gate.clear()
    backend.running.clear()
    submission = engine.submit(backend, ["held"], label=label)
    assert backend.running.wait(10)
    backend.order.clear()
    return submission


def finish(*submissions: Submission) -> None:
    for submission in submissions:
        assert sum(len(part.indices) for part in submission) > 0


def test_interactive_texts_go_before_bulk_texts(
    engine: Engine, model: Callable[[str], Gated], order: list[str]
) -> None:
    bulk, interactive = model("bulk"), model("interactive")
    held = hold(engine, bulk)
    first = engine.submit(bulk, [LONG] * 2, lane=Lane.BULK)
    second = engine.submit(interactive, [LONG] * 2, lane=Lane.INTERACTIVE)
    bulk.gate.set()
    finish(held, first, second)
    assert order == ["interactive", "interactive", "bulk", "bulk"]


def test_bulk_batches_of_a_slow_model_are_short_while_interactive_texts_come() -> None:
    padded: list[int] = []
    engine = Engine(on_batch=lambda _texts, tokens: padded.append(tokens))
    try:
        slow = FakeBackend("slow", FakeOptions(text_ms=1.0), device="cpu")  # at most 10,000 tokens per second
        engine.load(slow)
        texts = ["w " * 10] * 800
        finish(engine.submit(slow, texts, lane=Lane.BULK))
        assert max(padded) > 4000, "alone, bulk batches are full"
        padded.clear()
        finish(engine.submit(slow, ["one"], lane=Lane.INTERACTIVE), engine.submit(slow, texts, lane=Lane.BULK))
        assert max(padded) <= 1024
    finally:
        engine.close()


def test_bulk_gets_every_ninth_batch_while_interactive_texts_wait(
    engine: Engine, model: Callable[[str], Gated], order: list[str]
) -> None:
    bulk, interactive = model("bulk"), model("interactive")
    held = hold(engine, bulk)
    parts = [
        engine.submit(interactive, [LONG] * 20, lane=Lane.INTERACTIVE),
        engine.submit(bulk, [LONG] * 3, lane=Lane.BULK),
    ]
    bulk.gate.set()
    finish(held, *parts)
    run = ["interactive"] * 8
    assert order == [*run, "bulk", *run, "bulk", *["interactive"] * 4, "bulk"]


def test_models_of_a_lane_take_turns(engine: Engine, model: Callable[[str], Gated], order: list[str]) -> None:
    one, other = model("one"), model("other")
    held = hold(engine, one)
    parts = [engine.submit(one, [LONG] * 3), engine.submit(other, [LONG] * 3)]
    one.gate.set()
    finish(held, *parts)
    assert sorted(order[:2]) == sorted(order[2:4]) == sorted(order[4:]) == ["one", "other"]


def test_texts_of_a_cancelled_submission_never_reach_the_device(
    engine: Engine, model: Callable[[str], Gated], order: list[str]
) -> None:
    backend = model("m")
    held = hold(engine, backend)
    cancelled = engine.submit(backend, [LONG] * 5)
    kept = engine.submit(backend, ["short"])
    cancelled.cancel()
    backend.gate.set()
    finish(held, kept)
    engine.unload(backend)
    assert order == ["m"]


def test_the_running_batch_names_its_owners(engine: Engine, model: Callable[[str], Gated]) -> None:
    backend = model("m")
    assert engine.in_hand() == set()
    held = hold(engine, backend, label="job 1")
    waiting = engine.submit(backend, ["waits"], label="job 2")
    assert engine.in_hand() == {"job 1"}
    backend.gate.set()
    finish(held, waiting)


def test_owners_that_share_a_batch_are_all_named(engine: Engine, model: Callable[[str], Gated]) -> None:
    backend = model("m")
    held = hold(engine, backend)
    both = [engine.submit(backend, ["a"], label="job 1"), engine.submit(backend, ["b"], label="job 2")]
    backend.running.clear()
    backend.gate.set()
    assert backend.running.wait(10)
    finish(held, *both)
    assert engine.stats.batches == 2, "the texts of both owners were one batch"


def test_suspect_texts_run_in_a_batch_of_their_own(engine: Engine, model: Callable[[str], Gated]) -> None:
    backend = model("m")
    held = hold(engine, backend)
    parts = [engine.submit(backend, ["a", "b"]), engine.submit(backend, ["c", "d"], alone=True)]
    backend.gate.set()
    finish(held, *parts)
    assert engine.stats.batches == 3


def test_closing_fails_what_waits_and_finishes_what_runs(engine: Engine, model: Callable[[str], Gated]) -> None:
    backend = model("m")
    held = hold(engine, backend)
    waiting = engine.submit(backend, ["waits"])
    closing = threading.Thread(target=engine.close)
    closing.start()
    while not engine._stopping:
        pass
    backend.gate.set()
    closing.join(10)
    finish(held)
    with pytest.raises(BackendError, match="the engine was stopped"):
        list(waiting)
    with pytest.raises(BackendError, match="the engine was stopped"):
        engine.submit(backend, ["late"])


def test_a_model_is_unloaded_after_the_running_batch(engine: Engine, model: Callable[[str], Gated]) -> None:
    backend = model("m")
    held = hold(engine, backend)
    unloading = threading.Thread(target=engine.unload, args=(backend,))
    unloading.start()
    assert not backend.closed
    backend.gate.set()
    unloading.join(10)
    assert backend.closed
    finish(held)
    engine.load(backend)
    finish(engine.submit(backend, ["again"]))


USUAL = EngineStats(padded_tokens=1000, busy_s=10.0)
"""A device that takes 10 ms for each padded token."""


@pytest.mark.parametrize(
    ("taken_s", "stats", "hangs"),
    [
        (99.0, EngineStats(), False),  # the first batch: ten times `after_s`
        (101.0, EngineStats(), True),
        (9.0, EngineStats(padded_tokens=1000, busy_s=0.001), False),  # a fast device: `after_s`
        (11.0, EngineStats(padded_tokens=1000, busy_s=0.001), True),
        (19.0, USUAL, False),  # twenty times a usual second for 100 tokens
        (21.0, USUAL, True),
    ],
)
def test_a_batch_hangs_if_it_takes_far_longer_than_usual(
    engine: Engine, taken_s: float, stats: EngineStats, hangs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "time", SimpleNamespace(perf_counter=lambda: 500.0 + taken_s))
    engine._in_hand = (500.0, 100, [])
    engine.stats = stats
    assert engine.hangs(after_s=10.0, factor=20.0) == (Hang("a batch", taken_s) if hangs else None)


def test_a_device_that_does_nothing_does_not_hang(engine: Engine, model: Callable[[str], Gated]) -> None:
    backend = model("m")
    assert engine.hangs(after_s=0.0, factor=0.0) is None
    held = hold(engine, backend)
    assert engine.hangs(after_s=0.0, factor=0.0) is not None
    assert engine.hangs(after_s=60.0, factor=0.0) is None
    backend.gate.set()
    finish(held)
    engine.unload(backend)  # waits for the device thread
    assert engine.hangs(after_s=0.0, factor=0.0) is None
