"""The engine: rows reach their owners, bad texts fail alone, batches shrink when memory runs out, lanes take turns."""

import threading
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from semel.backends.base import Backend, Tokens
from semel.backends.engine import Engine
from semel.backends.fake import FakeBackend, FakeOptions
from semel.backends.submission import Submission
from semel.errors import BackendError
from semel.values.text import ItemError, Lane
from semel.values.vectors import Vectors
from tests.support.processes import wait_until


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = Engine()
    yield engine
    engine.close()


def fake(engine: Engine, **options: object) -> FakeBackend:
    backend = FakeBackend("fake", FakeOptions(**options), device="cpu")  # type: ignore[arg-type]
    engine.load(backend)
    return backend


def collect(submission: Submission, n: int, dim: int = 32) -> tuple[Vectors, dict[int, ItemError]]:
    out, errors = np.full((n, dim), np.nan, np.float32), dict[int, ItemError]()
    for part in submission:
        out[part.indices] = part.vectors.reshape(-1, dim)
        errors |= part.errors
    return out, errors


def test_each_text_gets_its_own_row(engine: Engine) -> None:
    backend = fake(engine)
    texts = [" ".join(["w"] * (i % 7 + 1)) + f" {i}" for i in range(500)]
    out, errors = collect(engine.submit(backend, texts), len(texts))
    assert not errors
    assert (out == backend.embed_texts(texts)).all()


def test_threads_share_batches_and_get_their_own_rows(engine: Engine) -> None:
    backend = fake(engine, text_ms=0.2)
    results: dict[int, bool] = {}

    def work(thread: int) -> None:
        texts = [f"{thread} {i}" for i in range(100)]
        out, _ = collect(engine.submit(backend, texts), 100)
        results[thread] = bool((out == backend.embed_texts(texts)).all())

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == dict.fromkeys(range(8), True)
    assert engine.stats.batches < 40


def test_a_bad_text_fails_alone(engine: Engine) -> None:
    backend = fake(engine, fail_on="poison")
    texts = [f"fine {i}" for i in range(50)]
    texts[17] = "some poison here"
    out, errors = collect(engine.submit(backend, texts), 50)
    assert list(errors) == [17]
    assert "fails on this text" in errors[17].message
    good = [i for i in range(50) if i != 17]
    assert (out[good] == backend.embed_texts([texts[i] for i in good])).all()


def test_an_unexpected_error_reaches_every_caller_that_waits(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("stderr is closed")

    backend = fake(engine)
    monkeypatch.setattr(engine, "_count", fail)
    with pytest.raises(BackendError, match="the device thread stopped: OSError: stderr is closed"):
        list(engine.submit(backend, ["a text"]))
    with pytest.raises(BackendError, match="the device thread stopped"):
        list(engine.submit(backend, ["a later one"]))


def test_a_nan_row_fails_only_its_text(engine: Engine) -> None:
    backend = fake(engine, nan_on="void")
    out, errors = collect(engine.submit(backend, ["fine", "a void", "fine too"]), 3)
    assert errors[1].code == "invalid_vector"
    assert np.isfinite(out[[0, 2]]).all()


class PaddingMakesNaN(FakeBackend):
    """A padded row is NaN and an unpadded one is right, as in mlx-embeddings #80."""

    def forward(self, batch: Sequence[Tokens]) -> Vectors:
        vectors = super().forward(batch)
        longest = max(len(t.ids) for t in batch)
        vectors[[len(t.ids) < longest for t in batch]] = np.nan
        return vectors


def test_a_row_that_padding_made_nan_is_computed_alone(engine: Engine) -> None:
    backend = PaddingMakesNaN("fake", FakeOptions(), device="cpu")
    engine.load(FakeBackend("healthy", FakeOptions(), device="cpu"))
    engine._budgets.add(backend)
    out, errors = collect(engine.submit(backend, ["one", "one two", "one two three"]), 3)
    assert not errors
    assert np.isfinite(out).all()


def test_out_of_memory_halves_the_batch_and_goes_on(engine: Engine) -> None:
    backend = fake(engine, memory_tokens=64)
    texts = [f"text {i}" for i in range(300)]
    out, errors = collect(engine.submit(backend, texts), 300)
    assert not errors
    assert np.isfinite(out).all()
    assert engine.stats.memory_halvings > 0


def test_the_smaller_budget_is_remembered(engine: Engine) -> None:
    backend = fake(engine, memory_tokens=64)
    collect(engine.submit(backend, [f"text {i}" for i in range(300)]), 300)
    before = engine.stats.memory_halvings
    collect(engine.submit(backend, [f"more {i}" for i in range(300)]), 300)
    assert engine.stats.memory_halvings == before


def test_interactive_goes_before_bulk(engine: Engine) -> None:
    backend = fake(engine, text_ms=1)
    bulk = engine.submit(backend, [f"{'long ' * 50}{i}" for i in range(400)], lane=Lane.BULK)
    interactive = engine.submit(backend, ["now"], lane=Lane.INTERACTIVE)
    collect(interactive, 1)
    assert engine.stats.texts < 200
    collect(bulk, 400)


def test_bulk_does_not_starve(engine: Engine) -> None:
    backend = fake(engine, text_ms=1)
    busy = engine.submit(backend, [f"{'w ' * 200}{i}" for i in range(400)], lane=Lane.INTERACTIVE)
    bulk = engine.submit(backend, ["bulk"], lane=Lane.BULK)
    collect(bulk, 1)
    assert engine.stats.texts < 300
    collect(busy, 400)


def test_a_dead_device_fails_every_caller_and_blames_no_text(engine: Engine) -> None:
    backend = fake(engine, dead_after=2)
    with pytest.raises(BackendError, match="health check"):
        collect(engine.submit(backend, [f"t{i} " * 40 for i in range(500)]), 500)
    with pytest.raises(BackendError):
        engine.submit(backend, ["more"])


def test_loading_on_a_dead_device_fails_instead_of_waiting(engine: Engine) -> None:
    backend = fake(engine, dead_after=1)
    with pytest.raises(BackendError):
        collect(engine.submit(backend, ["text"]), 1)
    with pytest.raises(BackendError):
        fake(engine)


def test_loading_on_a_closed_engine_fails() -> None:
    engine = Engine()
    engine.close()
    with pytest.raises(BackendError, match="stopped"):
        fake(engine)


def test_truncation_is_reported_for_each_text(engine: Engine) -> None:
    backend = fake(engine, max_tokens=3)
    parts = list(engine.submit(backend, ["a b c d", "a b c"]))
    truncated = {i: cut for part in parts for i, cut in zip(part.indices, part.truncated, strict=True)}
    assert truncated == {0: True, 1: False}


def test_a_cancelled_submission_is_dropped(engine: Engine) -> None:
    backend = fake(engine, text_ms=2)
    engine.submit(backend, [f"{'w ' * 100}{i}" for i in range(2000)]).cancel()
    collect(engine.submit(backend, ["next"]), 1)
    assert engine.stats.texts < 500


def test_a_budget_is_halved_for_texts_of_that_length_and_longer(engine: Engine) -> None:
    backend = fake(engine)
    budgets = engine._budgets
    whole = budgets.of(backend, 20)
    assert budgets.halve(backend, 100, padded=1000) == 500
    assert (budgets.of(backend, 20), budgets.of(backend, 63)) == (whole, whole)
    assert (budgets.of(backend, 64), budgets.of(backend, 100), budgets.of(backend, 2000)) == (500, 500, 500)
    assert budgets.halve(backend, 100, padded=500) == 250
    assert budgets.of(backend, 100) == 250
    assert budgets.halve(backend, 2000, padded=2000) == 125  # the limit of shorter texts holds, too


def test_a_batch_that_hangs_is_noticed(engine: Engine) -> None:
    backend = fake(engine, text_ms=300)
    assert engine.hangs(after_s=0.0, factor=1.0) is None
    submission = engine.submit(backend, ["slow"])
    assert engine.hangs(after_s=0.1, factor=2.0) is None  # the first batch may take longer
    wait_until(lambda: engine.hangs(after_s=0.01, factor=2.0) is not None)
    assert engine.hangs(after_s=5.0, factor=1.0) is None  # not yet
    collect(submission, 1)
    assert engine.hangs(after_s=0.0, factor=1.0) is None
    submission = engine.submit(backend, ["slow again"])
    wait_until(lambda: engine._in_hand is not None)
    assert engine.hangs(after_s=0.0, factor=20.0) is None  # usual for this device
    wait_until(lambda: engine.hangs(after_s=0.0, factor=0.1) is not None)
    collect(submission, 1)


def test_no_model_is_loaded_on_a_device_that_computes_wrong_numbers(engine: Engine) -> None:
    with pytest.raises(BackendError, match="failed its health check"):
        fake(engine, nan_on="up")  # a word of the sample
    with pytest.raises(BackendError, match="self-test: wrong"):
        fake(engine, unfit="wrong")
    fake(engine)


def test_a_model_can_be_unloaded_between_batches(engine: Engine) -> None:
    closed = threading.Event()
    backend = fake(engine)
    backend.close = closed.set  # type: ignore[method-assign]
    collect(engine.submit(backend, ["one"]), 1)
    engine.unload(backend)
    assert closed.is_set()


class Timed(FakeBackend):
    """Takes `each_s` seconds for each padded token, by a clock of its own."""

    each_s = 0.0
    largest = 0
    now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def forward(self, batch: Sequence[Tokens]) -> Vectors:
        self.largest = max(self.largest, len(batch))
        self.now += self.each_s * len(batch) * max(len(t.ids) for t in batch)
        return super().forward(batch)

    def warm_up(self) -> str:
        return Backend.warm_up(self)


def test_a_warm_up_runs_a_full_batch_or_returns_why_not(monkeypatch: pytest.MonkeyPatch) -> None:
    quick, slow = (Timed("fake", FakeOptions(), device="cpu") for _ in range(2))
    slow.each_s = 0.002
    monkeypatch.setattr("semel.backends.base.time", quick)
    assert quick.warm_up() == "warmed up with a full batch"
    assert quick.largest > 1000
    monkeypatch.setattr("semel.backends.base.time", slow)
    assert slow.warm_up().startswith("no warm-up: a full batch would take about ")
    assert slow.largest == 2
