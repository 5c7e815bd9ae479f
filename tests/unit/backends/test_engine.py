"""The engine: rows reach their owners, bad texts fail alone, batches shrink when memory runs out, lanes take turns."""

import threading
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from semel.backends.base import Tokens
from semel.backends.engine import Engine
from semel.backends.fake import FakeBackend, FakeOptions
from semel.backends.submission import Submission
from semel.errors import BackendError, BadInputError, ModelLoadError
from semel.values.text import Input, ItemError
from semel.values.variant import AS_DEFINED, Variant
from semel.values.vectors import Vectors


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = Engine()
    yield engine
    engine.close()


def fake(engine: Engine, **options: object) -> FakeBackend:
    backend = FakeBackend("fake", FakeOptions(**options), device="cpu")  # type: ignore[arg-type]
    engine.load(backend)
    return backend


def computed(backend: FakeBackend, texts: Sequence[Input], *, prompt: str = "") -> Vectors:
    """What the device gives for the texts in one batch, without the engine."""
    return backend.forward(backend.tokenize(texts, prompt=prompt))


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
    assert (out == computed(backend, texts)).all()


def test_threads_share_batches_and_get_their_own_rows(engine: Engine) -> None:
    backend = fake(engine, text_ms=0.05)
    results: dict[int, bool] = {}

    def work(thread: int) -> None:
        texts = [f"{thread} {i}" for i in range(100)]
        out, _ = collect(engine.submit(backend, texts), 100)
        results[thread] = bool((out == computed(backend, texts)).all())

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
    assert (out[good] == computed(backend, [texts[i] for i in good])).all()


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


def test_a_dead_device_fails_everyone_and_blames_no_text(engine: Engine) -> None:
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


def test_no_model_is_loaded_on_a_device_that_computes_wrong_numbers(engine: Engine) -> None:
    with pytest.raises(BackendError, match="failed its health check"):
        fake(engine, nan_on="up")  # a word of the sample
    with pytest.raises(BackendError, match="self-test: wrong"):
        fake(engine, unfit="wrong")
    fake(engine)


@pytest.mark.parametrize("bad", [[0], [49], [3, 4, 40], list(range(50))])
def test_bad_texts_are_found_wherever_they_are(engine: Engine, bad: list[int]) -> None:
    backend = fake(engine, fail_on="poison")
    texts = [f"poison {i}" if i in bad else f"fine {i}" for i in range(50)]
    out, errors = collect(engine.submit(backend, texts), 50)
    assert sorted(errors) == bad
    assert np.isfinite(out).all(axis=1).sum() == 50 - len(bad)


def test_a_text_that_does_not_fit_into_memory_alone_fails_as_such(engine: Engine) -> None:
    backend = fake(engine, memory_tokens=20)
    texts = ["short", "long " * 30, "short too"]
    out, errors = collect(engine.submit(backend, texts), 3)
    assert {i: error.code for i, error in errors.items()} == {1: "out_of_memory"}
    assert np.isfinite(out[[0, 2]]).all()


def test_an_error_of_semel_keeps_its_code(engine: Engine) -> None:
    class Refusing(FakeBackend):
        def forward(self, batch: Sequence[Tokens]) -> Vectors:
            if any(len(tokens.ids) == 3 for tokens in batch):
                raise BadInputError("three words are too few")
            return super().forward(batch)

    backend = Refusing("fake", FakeOptions(), device="cpu")
    engine.load(backend)
    _, errors = collect(engine.submit(backend, ["one two three", "one"]), 2)
    assert errors[0] == ItemError("invalid_input", "the model fails on this text: three words are too few")


def test_tokenising_in_slices_keeps_the_positions(engine: Engine) -> None:
    slices: list[int] = []

    class Counting(FakeBackend):
        def tokenize(self, texts: Sequence[Input], *, prompt: str = "", variant: Variant = AS_DEFINED) -> list[Tokens]:
            slices.append(len(texts))
            return super().tokenize(texts, prompt=prompt, variant=variant)

    backend = Counting("fake", FakeOptions(), device="cpu")
    engine.load(backend)
    slices.clear()
    texts = [f"text {i}" for i in range(600)]
    out, _ = collect(engine.submit(backend, texts, prompt="find "), 600)
    assert slices == [256, 256, 88]
    assert (out == computed(backend, texts, prompt="find ")).all()


def test_texts_are_cut_where_their_variant_cuts(engine: Engine) -> None:
    backend = fake(engine)
    texts = [f"text {i} with an end" for i in range(300)]
    out, errors = collect(engine.submit(backend, texts, variant=Variant(max_tokens=2, truncate_side="left")), 300)
    assert not errors
    assert (out == computed(backend, ["an end"])).all()


def test_an_input_that_cannot_be_tokenised_fails_its_caller_only(engine: Engine) -> None:
    class TextsOnly(FakeBackend):
        def tokenize(self, texts: Sequence[Input], *, prompt: str = "", variant: Variant = AS_DEFINED) -> list[Tokens]:
            if "pair" in texts:
                raise BadInputError("no pairs")
            return super().tokenize(texts, prompt=prompt, variant=variant)

    backend = TextsOnly("fake", FakeOptions(), device="cpu")
    engine.load(backend)
    with pytest.raises(BadInputError, match="no pairs"):
        engine.submit(backend, ["pair"])
    assert np.isfinite(collect(engine.submit(backend, ["text"]), 1)[0]).all()


def test_no_texts_give_no_parts(engine: Engine) -> None:
    assert list(engine.submit(fake(engine), [])) == []


def test_a_model_that_does_not_load_leaves_the_engine_running(engine: Engine) -> None:
    class Missing(FakeBackend):
        def load(self) -> None:
            raise ModelLoadError("no such folder")

    with pytest.raises(ModelLoadError, match="no such folder"):
        engine.load(Missing("fake", FakeOptions(), device="cpu"))
    assert np.isfinite(collect(engine.submit(fake(engine), ["text"]), 1)[0]).all()


def test_a_load_returns_what_the_warm_up_did(engine: Engine) -> None:
    assert engine.load(FakeBackend("fake", FakeOptions(), device="cpu")) == "a fake model has nothing to warm up"


def test_texts_tokens_and_seconds_are_counted_and_observed() -> None:
    stages: list[str] = []
    batches: list[tuple[int, int]] = []
    engine = Engine(
        observe=lambda stage, seconds: stages.append(stage) if seconds >= 0 else None,
        on_batch=lambda texts, padded: batches.append((texts, padded)),
    )
    try:
        collect(engine.submit(fake(engine), ["one", "one two three"]), 2)
        stats = engine.stats
    finally:
        engine.close()
    assert stages == ["tokenise", "device"]
    assert batches == [(2, 6)]
    assert (stats.batches, stats.texts, stats.tokens, stats.padded_tokens) == (1, 2, 4, 6)
    assert stats.busy_s > 0


def test_a_given_budget_bounds_every_batch() -> None:
    batches: list[tuple[int, int]] = []
    engine = Engine(max_batch_tokens=64, on_batch=lambda texts, padded: batches.append((texts, padded)))
    try:
        collect(engine.submit(fake(engine), [f"text number {i}" for i in range(100)]), 100)
    finally:
        engine.close()
    assert sum(texts for texts, _ in batches) == 100
    assert max(padded for _, padded in batches) <= 64
