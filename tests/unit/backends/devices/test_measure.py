"""How the speed of a device and the agreement of two are measured, with a fake model and a clock of its own."""

from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from semel.backends.base import Tokens
from semel.backends.devices import measure as measure_module
from semel.backends.devices.measure import TEXTS, agreement, embed_all, makes_sense, measure
from semel.backends.engine import Engine
from semel.backends.fake import FakeBackend, FakeOptions
from semel.errors import BackendError
from semel.values.vectors import Vectors


class Clock:
    """A clock that only the device moves."""

    now = 0.0

    def perf_counter(self) -> float:
        return self.now


class Steady(FakeBackend):
    """Takes 4 ms for each batch and 1 ms for each text."""

    clock: Clock

    def forward(self, batch: Sequence[Tokens]) -> Vectors:
        self.clock.now += 0.004 + 0.001 * len(batch)
        return super().forward(batch)


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = Engine()
    yield engine
    engine.close()


def loaded(engine: Engine, **options: object) -> Steady:
    backend = Steady("fake", FakeOptions(**options), device="cpu")  # type: ignore[arg-type]
    backend.clock = Clock()
    engine.load(backend)
    return backend


def test_speed_is_measured_in_batches_and_latency_one_by_one(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = loaded(engine)
    monkeypatch.setattr(measure_module, "time", backend.clock)
    figures = measure(engine, backend, model="small")
    assert figures.model == "small"
    assert figures.latency_ms == pytest.approx(5.0)
    assert 900 < figures.texts_per_s < 1000  # 1,000 without the 4 ms for each batch


def test_a_run_grows_until_it_takes_a_second(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = loaded(engine)
    monkeypatch.setattr(measure_module, "time", backend.clock)
    measure(engine, backend, model="small")
    texts = engine.stats.texts - measure_module._SINGLES
    assert texts == 8 * (2**8 - 1)  # 8, 16, … 1,024: the first run of a second


def test_a_device_that_fails_gives_no_figures(engine: Engine) -> None:
    backend = loaded(engine, dead_after=3)
    with pytest.raises(BackendError, match="the device failed its health check"):
        measure(engine, backend, model="small")


def test_vectors_come_in_the_order_of_the_texts(engine: Engine) -> None:
    backend = loaded(engine)
    vectors = embed_all(engine, backend)
    assert vectors.dtype == np.float32
    assert (vectors == backend.forward(backend.tokenize(TEXTS))).all()


def test_agreement_is_the_cosine_for_each_pair_of_devices() -> None:
    axes = np.eye(2, 3, dtype=np.float32)
    between = np.array([[1, 0, 0], [3, 4, 0]], np.float32)
    assert agreement({"cpu": axes}) == []
    pairs = agreement({"cpu": axes, "cuda:0": 2 * axes, "mlx": between})
    assert [pair[:2] for pair in pairs] == [("cpu", "cuda:0"), ("cpu", "mlx"), ("cuda:0", "mlx")]
    assert pairs[0][2:] == pytest.approx((1.0, 1.0))
    assert pairs[1][2:] == pytest.approx((0.8, 0.9))  # lowest, mean


def meaning(cat: Sequence[float], feline: Sequence[float], market: Sequence[float]) -> Vectors:
    return np.array([cat, feline, market, *[[1, 1]] * (len(TEXTS) - 3)], np.float32)


def test_vectors_make_sense_if_equal_meanings_are_closer() -> None:
    assert makes_sense(meaning([1, 0], [4, 3], [0, 5])) == (True, "cat and feline 0.80, cat and stock market 0.00")
    assert makes_sense(meaning([1, 0], [0, 5], [4, 3])) == (False, "cat and feline 0.00, cat and stock market 0.80")


def test_equal_cosines_make_no_sense() -> None:
    assert makes_sense(meaning([1, 0], [1, 0], [1, 0]))[0] is False
