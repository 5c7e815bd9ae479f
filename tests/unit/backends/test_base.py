"""The methods that every backend inherits: health check, warm-up, embedding and reranking without the engine."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from semel.backends.base import SAMPLE_PAIRS, SAMPLES, Backend, ModelInfo, Tokens
from semel.backends.fake import FakeBackend, FakeOptions
from semel.errors import BackendError
from semel.values.text import Pair
from semel.values.vectors import Vectors


class Axes(FakeBackend):
    """Maps a text of n words to the n-th axis; records its batches."""

    def __init__(self, dim: int = 4) -> None:
        super().__init__("axes", FakeOptions(dim=dim), device="cpu")
        self.batches: list[int] = []
        self.vectors: Vectors = np.eye(dim, dtype=np.float32)

    def forward(self, batch: Sequence[Tokens]) -> Vectors:
        self.batches.append(len(batch))
        return self.vectors[[(len(tokens.ids) - 1) % len(self.vectors) for tokens in batch]]


def test_vectors_come_from_one_batch_in_order() -> None:
    backend = Axes()
    vectors = backend.embed_texts(["a", "a b c", "a b"])
    assert vectors.argmax(axis=1).tolist() == [0, 2, 1]
    assert backend.batches == [3]


def test_a_prompt_goes_before_each_text() -> None:
    assert Axes().embed_texts(["a", "a b"], prompt="find ").argmax(axis=1).tolist() == [1, 2]


def test_vectors_are_scaled_to_length_1_if_the_model_normalises() -> None:
    class Long(FakeBackend):
        normalizes = True

        def forward(self, batch: Sequence[Tokens]) -> Vectors:
            return np.array([[3, 4]] * len(batch), np.float32)

        def get_model_info(self) -> ModelInfo:
            return replace(super().get_model_info(), normalizes=self.normalizes)

    backend = Long("long", FakeOptions(dim=2), device="cpu")
    np.testing.assert_allclose(backend.embed_texts(["a", "b"]), [[0.6, 0.8]] * 2, atol=1e-6)
    backend.normalizes = False
    assert backend.embed_texts(["a"]).tolist() == [[3, 4]]


def test_documents_are_scored_by_their_cosine_with_the_query() -> None:
    backend = Axes(2)
    backend.vectors = np.array([[2, 0], [3, 4]], np.float32)
    scores = backend.rerank_documents("query", ["same", "two words"])
    assert scores.dtype == np.float32
    assert scores.tolist() == pytest.approx([1.0, 0.6])


def test_no_documents_have_no_scores() -> None:
    assert Axes().rerank_documents("query", []).shape == (0,)


def test_a_healthy_device_passes_the_check() -> None:
    Axes().health_check()


@pytest.mark.parametrize("wrong", [np.nan, np.inf, 0.0])
def test_one_unsound_vector_fails_the_check(wrong: float) -> None:
    backend = Axes()
    backend.vectors[len(str(SAMPLES[1]).split(" ")) % 4 - 1] = wrong
    with pytest.raises(BackendError, match="failed its health check: it returns NaN or zero vectors"):
        backend.health_check()


def test_any_error_of_the_framework_fails_the_check() -> None:
    backend = FakeBackend("fake", FakeOptions(fail_on="warm"), device="cpu")  # a word of the samples
    with pytest.raises(BackendError, match="failed its health check: the fake model fails on 'warm'") as raised:
        backend.health_check()
    assert isinstance(raised.value.__cause__, ValueError)


def test_a_score_of_zero_is_healthy() -> None:
    class Zero(FakeBackend):
        def forward(self, batch: Sequence[Tokens]) -> Vectors:
            return np.zeros((len(batch), 1), np.float32)

    Zero("zero", FakeOptions(), device="cpu", kind="cross-encoder").health_check()


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
    slow.each_s = 0.02
    monkeypatch.setattr("semel.backends.base.time", quick)
    assert quick.warm_up() == "warmed up with a full batch"
    assert quick.largest > 1000
    monkeypatch.setattr("semel.backends.base.time", slow)
    assert slow.warm_up().startswith("warmed up with 32 texts: a full batch would take about ")
    assert slow.largest == 32


def test_a_slow_first_batch_does_not_end_a_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    class Lazy(Timed):
        def forward(self, batch: Sequence[Tokens]) -> Vectors:
            self.now += 0 if self.largest else 9
            return super().forward(batch)

    backend = Lazy("fake", FakeOptions(), device="cpu")
    monkeypatch.setattr("semel.backends.base.time", backend)
    assert backend.warm_up() == "warmed up with a full batch"


def test_a_warm_up_fills_a_batch_with_the_first_sample() -> None:
    backend = Axes()
    assert Backend.warm_up(backend) == "warmed up with a full batch"
    words = len(str(SAMPLES[0]).split(" "))
    full = backend.get_model_info().max_batch_tokens // words
    assert backend.batches == [2, 2, 32, 512, full]


def test_an_error_in_the_warm_up_reaches_the_caller() -> None:
    backend = FakeBackend("fake", FakeOptions(dead_after=1), device="cpu")
    with pytest.raises(RuntimeError, match="the fake device is dead"):
        Backend.warm_up(backend)


def test_the_samples_differ_in_length() -> None:
    """A batch of equal lengths has no padding, so it would not show a device that fails on it."""
    assert len({len(str(text)) for text in SAMPLES}) == 2
    assert all(isinstance(pair, Pair) for pair in SAMPLE_PAIRS)
