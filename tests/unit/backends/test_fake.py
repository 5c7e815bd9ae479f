"""The fake model: vectors that depend on the text, and the faults that its options ask for."""

import time
from pathlib import Path

import numpy as np
import pytest

from semel.backends.base import Spelled
from semel.backends.fake import FakeBackend, FakeOptions
from semel.errors import BackendError, BadInputError, DeviceMemoryError
from semel.values.text import Pair
from semel.values.variant import Variant
from semel.values.vectors import Vectors, unit_rows


def fake(options: str = "", *, reranks: bool = False) -> FakeBackend:
    kind = "cross-encoder" if reranks else "embed"
    return FakeBackend("fake", FakeOptions.parse(f"fake:?{options}"), device="cpu", kind=kind)  # type: ignore[arg-type]


def test_options_are_read_from_the_source() -> None:
    options = FakeOptions.parse("fake:?dim=16&text_ms=0.5&fail_on=poison&weights=b")
    assert options == FakeOptions(dim=16, text_ms=0.5, fail_on="poison", weights="b")
    assert FakeOptions.parse("fake:") == FakeOptions()


def test_an_unknown_option_is_answered_with_the_known_ones() -> None:
    with pytest.raises(BadInputError, match=r"a fake model has no option 'size' \(known: dim, max_tokens, "):
        FakeOptions.parse("fake:?size=3")


def test_an_option_of_the_wrong_type_is_refused() -> None:
    with pytest.raises(BadInputError, match=r"'fake:\?dim=many' has an option of the wrong type"):
        FakeOptions.parse("fake:?dim=many")


def test_vectors_have_length_one_and_depend_on_text_and_weights() -> None:
    texts = ["one", "two", "two one", "one two"]
    vectors = fake("dim=16").embed_texts(texts)
    assert (vectors.shape, vectors.dtype) == ((4, 16), np.dtype(np.float32))
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert len({row.tobytes() for row in vectors}) == 4
    assert (fake("dim=16").embed_texts(texts) == vectors).all()
    assert not np.allclose(fake("dim=16&weights=b").embed_texts(texts), vectors)


def test_a_long_text_is_truncated_in_words() -> None:
    tokens = fake("max_tokens=3").tokenize(["a b c", "a b c d"])
    assert [(len(each.ids), each.truncated) for each in tokens] == [(3, False), (3, True)]
    assert tokens[0].ids == tokens[1].ids


def test_the_device_gives_vectors_of_another_length_than_those_that_are_stored() -> None:
    backend = fake("dim=16")
    raw = backend.forward(backend.tokenize(["one", "two"]))
    assert (np.linalg.norm(raw, axis=1) > 1000).all()
    np.testing.assert_allclose(unit_rows(raw), backend.embed_texts(["one", "two"]), atol=1e-6)


@pytest.mark.parametrize(
    ("variant", "read"),
    [
        (Variant(max_tokens=2), "a b"),
        (Variant(truncate_side="left"), "b c d"),
        (Variant(max_tokens=2, truncate_side="left"), "c d"),
        (Variant(document_tokens=1), "a"),
        (Variant(max_tokens=2, truncate_side="left", document_tokens=3), "b c"),
    ],
)
def test_a_variant_cuts_elsewhere(variant: Variant, read: str) -> None:
    backend = fake("max_tokens=3")
    (tokens,), (expected,) = backend.tokenize(["a b c d"], variant=variant), backend.tokenize([read])
    assert (tokens.ids, tokens.truncated) == (expected.ids, True)


def test_the_document_of_a_pair_is_cut_and_its_query_is_not() -> None:
    backend = fake(reranks=True)
    (tokens,) = backend.tokenize([Pair("a b c", "d e f")], variant=Variant(document_tokens=2))
    assert tokens == backend.tokenize([Pair("a b c", "d e")])[0]._replace(truncated=True)


def test_spelling_shows_the_words_and_their_positions() -> None:
    special, first, second = fake().spell("naïve text")
    assert special == Spelled(0, "[CLS]", special=True, start=None, stop=None)
    assert [(each.text, each.start, each.stop) for each in (first, second)] == [("naïve", 0, 5), ("text", 6, 10)]
    assert [each.text for each in fake().spell("naïve text", special=False)] == ["naïve", "text"]


def test_spelled_ids_are_those_that_the_model_reads() -> None:
    backend = fake()
    assert [each.id for each in backend.spell("a b", special=False)] == backend.tokenize(["a b"])[0].ids


def scores(*pairs: Pair, options: str = "") -> list[float]:
    backend = fake(options, reranks=True)
    result: Vectors = backend.forward(backend.tokenize(pairs))
    assert result.shape == (len(pairs), 1)
    values: list[float] = result[:, 0].tolist()
    return values


def test_a_score_is_the_share_of_the_query_in_the_document() -> None:
    assert scores(Pair("a b", "b a c"), Pair("a b", "a c"), Pair("a b", "c")) == [1.0, 0.5, 0.0]


def test_a_pair_without_a_query_scores_zero() -> None:
    assert scores(Pair("", "a")) == [0.0]


def test_a_query_above_the_limit_leaves_no_document() -> None:
    assert scores(Pair("a b c d", "a"), options="max_tokens=3") == [0.0]


def test_a_batch_with_the_word_fails_and_others_do_not() -> None:
    backend = fake("fail_on=poison")
    assert np.isfinite(backend.embed_texts(["fine"])).all()
    with pytest.raises(ValueError, match="the fake model fails on 'poison'"):
        backend.embed_texts(["fine", "some poison here"])


def test_a_text_with_the_word_is_nan_and_its_neighbours_are_not() -> None:
    vectors = fake("nan_on=void").embed_texts(["fine", "a void", "avoid"])
    assert np.isnan(vectors).any(axis=1).tolist() == [False, True, False]


def test_memory_is_counted_in_padded_tokens() -> None:
    backend = fake("memory_tokens=6")
    backend.embed_texts(["a b c", "a b c"])
    with pytest.raises(DeviceMemoryError, match="holds 6 tokens"):
        backend.embed_texts(["a b c d", "a"])


def test_a_device_dies_after_its_batches() -> None:
    backend = fake("dead_after=2")
    for _ in range(2):
        backend.embed_texts(["a"])
    for _ in range(2):
        with pytest.raises(RuntimeError, match="the fake device is dead"):
            backend.embed_texts(["a"])


def test_time_is_spent_for_each_text_and_for_a_word_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    backend = fake("text_ms=5&hang_on=forever")
    backend.embed_texts(["a", "b"])
    assert slept == [0.01]
    backend.embed_texts(["forever"])
    assert slept[1] > 1000


def test_loading_takes_its_time_and_a_step_can_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    fake("load_s=5").load()
    assert slept == [5.0]
    for step in ("load", "health_check", "warm_up", "close"):
        slept.clear()
        backend = fake(f"hang_in={step}")
        for other in ("load", "health_check", "warm_up", "close"):
            getattr(backend, other)()
        assert slept == [3600]


def test_an_unfit_device_loads_no_model() -> None:
    fake().load()
    with pytest.raises(BackendError, match="the device failed its self-test: too hot"):
        fake("unfit=too hot").load()


def test_the_journal_gets_a_line_for_each_text_on_the_device(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    backend = fake(f"journal={journal}&fail_on=poison")
    backend.embed_texts(["a", "b c"])
    with pytest.raises(ValueError, match="poison"):
        backend.embed_texts(["poison"])
    assert [len(line.split(",")) for line in journal.read_text().splitlines()] == [1, 2]
