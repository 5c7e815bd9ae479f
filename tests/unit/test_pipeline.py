"""Texts to vectors: what is sent, what is read, and what is said about each text."""

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from semel.cache.store import VectorStore
from semel.db import Database
from semel.dimensions import check_dimensions, cut_dimensions
from semel.errors import BadInputError, InvalidTextError, UnavailableError
from semel.pipeline import Pipeline
from semel.values.model import Space
from semel.values.text import Input, ItemError, Lane, Outcome, Pair
from semel.values.variant import Variant
from semel.values.vectors import Computed, Found, Vectors
from tests.support.values import PRODUCER, put, space, vectors

SPACE = space()
HIT, COMPUTED, COALESCED, FAILED = Outcome


def vector(text: str) -> Vectors:
    """Another one for each text, so that swapped rows are seen."""
    return vectors(1, seed=len(text) * 1000 + sum(text.encode()))


class FakeSender:
    """Stores a vector for each text, and fails those with `poison`.

    Attributes:
        sent: the texts of each call.
        lost: so many calls store nothing, as if a prune took the vectors at once.
    """

    def __init__(self, store: VectorStore) -> None:
        self._store = store
        self.sent: list[list[Input]] = []
        self.lanes: list[Lane] = []
        self.lost = 0
        self.inference_s: float | None = 0.25

    def compute(self, space: Space, missing: Mapping[bytes, Input], *, lane: Lane) -> Computed:
        self.sent.append(list(missing.values()))
        self.lanes.append(lane)
        done = Computed(inference_s=self.inference_s)
        for key, text in missing.items():
            assert isinstance(text, str)
            if text == "poison":
                done.fail(key, ItemError("backend_error", "the model fails on it"))
                continue
            done.add(key, Outcome.COMPUTED, tokens=3, truncated=text.startswith("long"))
            if self.lost == 0:
                self._store.put_many(
                    space, [key], vector(text), tokens=[3], truncated=[text.startswith("long")], producer=PRODUCER
                )
        self.lost = max(0, self.lost - 1)
        return done


@pytest.fixture
def store(sqlite_db: Database) -> VectorStore:
    return VectorStore(sqlite_db)


@pytest.fixture
def sender(store: VectorStore) -> FakeSender:
    return FakeSender(store)


@pytest.fixture
def pipeline(store: VectorStore, sender: FakeSender) -> Pipeline:
    return Pipeline(store, sender)


def test_each_row_is_the_vector_of_its_text(pipeline: Pipeline, store: VectorStore) -> None:
    put(store, ["cached"], vector("cached"))
    texts = ["new", "cached", "newer", "new"]
    answer = pipeline.embed(SPACE, texts)
    np.testing.assert_array_equal(answer.vectors, np.concatenate([vector(text) for text in texts]))
    assert answer.outcomes == [COMPUTED, HIT, COMPUTED, COALESCED]
    assert answer.tokens.tolist() == [3, 3, 3, 3]


def test_only_missing_texts_are_sent_and_equal_ones_once(
    pipeline: Pipeline, store: VectorStore, sender: FakeSender
) -> None:
    put(store, ["cached"], vector("cached"))
    pipeline.embed(SPACE, ["new", "cached", "new"], lane=Lane.BULK)
    assert sender.sent == [["new"]]
    assert sender.lanes == [Lane.BULK]


def test_hits_alone_send_nothing_and_take_no_inference(
    pipeline: Pipeline, store: VectorStore, sender: FakeSender
) -> None:
    put(store, ["one", "two"], vectors(2))
    answer = pipeline.embed(SPACE, ["one", "two"])
    assert sender.sent == []
    assert (answer.outcomes, answer.inference_s) == ([HIT, HIT], 0.0)


def test_no_texts_are_no_vectors(pipeline: Pipeline) -> None:
    assert pipeline.embed(SPACE, []).vectors.shape == (0, 4)


def test_the_same_text_in_another_space_is_another_text(pipeline: Pipeline, sender: FakeSender) -> None:
    pipeline.embed(SPACE, ["text"])
    pipeline.embed(space(weights="w2"), ["text"])
    assert sender.sent == [["text"], ["text"]]


def test_a_failed_text_has_its_error_and_no_vector_and_fails_nothing_else(pipeline: Pipeline) -> None:
    answer = pipeline.embed(SPACE, ["fine", "poison", "poison"])
    assert answer.outcomes == [COMPUTED, FAILED, FAILED]
    assert answer.errors == dict.fromkeys((1, 2), ItemError("backend_error", "the model fails on it"))
    assert np.isnan(answer.vectors[1:]).all()
    np.testing.assert_array_equal(answer.vectors[:1], vector("fine"))


def test_a_failed_text_is_not_sent_again_in_the_same_call(pipeline: Pipeline, sender: FakeSender) -> None:
    sender.lost = 1
    pipeline.embed(SPACE, ["fine", "poison"])
    assert sender.sent == [["fine", "poison"], ["fine"]]


def test_a_pruned_vector_is_computed_again(pipeline: Pipeline, sender: FakeSender) -> None:
    sender.lost = 2
    answer = pipeline.embed(SPACE, ["a text"])
    np.testing.assert_array_equal(answer.vectors, vector("a text"))
    assert (answer.outcomes, len(sender.sent), answer.inference_s) == ([COMPUTED], 3, 0.75)


def test_a_vector_that_is_always_pruned_is_an_error_and_never_a_made_up_row(
    pipeline: Pipeline, sender: FakeSender
) -> None:
    sender.lost = 99
    with pytest.raises(UnavailableError, match="the vector of text 1 was pruned before it could be read; try again"):
        pipeline.embed(SPACE, ["poison", "a text"])
    assert len(sender.sent) == 3


def test_a_text_that_is_cut_fails_if_truncation_is_not_allowed(pipeline: Pipeline) -> None:
    answer = pipeline.embed(SPACE, ["short", "long text"], truncate=False)
    assert answer.outcomes == [COMPUTED, FAILED]
    assert answer.errors[1].code == "text_too_long"
    cut = pipeline.embed(SPACE, ["long text"])
    assert (cut.outcomes, cut.errors, cut.truncated.tolist()) == ([HIT], {}, [True])


def test_a_cached_text_that_was_cut_fails_as_well_if_truncation_is_not_allowed(pipeline: Pipeline) -> None:
    pipeline.embed(SPACE, ["long text"])
    assert pipeline.embed(SPACE, ["long text"], truncate=False).outcomes == [FAILED]


@pytest.mark.parametrize(("text", "why"), [("", "is empty"), ("\ud800", "surrogate"), (5, "is int")])
def test_a_text_without_a_key_is_refused_before_anything_is_sent(
    pipeline: Pipeline, sender: FakeSender, text: str, why: str
) -> None:
    with pytest.raises(InvalidTextError, match=f"text 1 .*{why}"):
        pipeline.embed(SPACE, ["fine", text])
    assert sender.sent == []


def test_a_pair_for_an_embedding_model_is_refused_before_anything_is_sent(
    pipeline: Pipeline, sender: FakeSender
) -> None:
    with pytest.raises(BadInputError, match="does not score pairs"):
        pipeline.embed(SPACE, [Pair("query", "document")])
    assert sender.sent == []


def test_an_error_of_the_sender_reaches_the_caller(store: VectorStore) -> None:
    class Unreachable:
        def compute(self, *_: object, **__: object) -> Computed:
            raise UnavailableError("no worker is alive")

    with pytest.raises(UnavailableError, match="no worker is alive"):
        Pipeline(store, Unreachable()).embed(SPACE, ["a text"])


def test_the_callback_receives_what_became_of_each_text(store: VectorStore, sender: FakeSender) -> None:
    seen: list[tuple[Space, list[Outcome]]] = []

    def note(where: Space, outcomes: Sequence[Outcome]) -> None:
        seen.append((where, list(outcomes)))

    pipeline = Pipeline(store, sender, on_embedded=note)
    pipeline.embed(SPACE, ["one", "one", "poison"])
    pipeline.embed(SPACE, ["one"])
    assert seen == [(SPACE, [COMPUTED, COALESCED, FAILED]), (SPACE, [HIT])]


def test_an_unmeasured_inference_is_unknown(pipeline: Pipeline, sender: FakeSender) -> None:
    sender.inference_s = None
    assert pipeline.embed(SPACE, ["a text"]).inference_s is None


def test_a_damaged_row_is_computed_again(pipeline: Pipeline, store: VectorStore, sqlite_db: Database) -> None:
    put(store, ["a text"], vector("a text"))
    with sqlite_db.write() as conn:
        conn.exec_driver_sql("UPDATE vectors SET crc = crc + 1")
    answer = pipeline.embed(SPACE, ["a text"])
    assert answer.outcomes == [COMPUTED]
    np.testing.assert_array_equal(answer.vectors, vector("a text"))


# Matryoshka


def matryoshka(*dims: int) -> Space:
    made = space(8)
    return Space(**{**vars(made), "matryoshka_dims": dims})


def test_a_cut_vector_has_length_one_again() -> None:
    rows = vectors(3, 8)
    cut = cut_dimensions(rows, 2, matryoshka(4, 2))
    assert cut.shape == (3, 2)
    np.testing.assert_allclose(np.linalg.norm(cut, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(cut[0] / cut[0, 0], rows[0, :2] / rows[0, 0], rtol=1e-5)


def test_a_cut_vector_keeps_its_length_in_a_variant_that_asks_for_it() -> None:
    rows = vectors(3, 8) * 5
    assert np.array_equal(cut_dimensions(rows, 2, matryoshka(4, 2).with_variant(Variant(normalize=False))), rows[:, :2])
    plain = cut_dimensions(rows, 2, matryoshka(4, 2).with_variant(Variant(max_tokens=5)))
    np.testing.assert_allclose(np.linalg.norm(plain, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("dimensions", [None, 8])
def test_the_full_size_is_returned_as_it_is(dimensions: int | None) -> None:
    rows = vectors(3, 8)
    assert cut_dimensions(rows, dimensions, matryoshka(4)) is rows


@pytest.mark.parametrize("dimensions", [3, 0, -4, 16])
def test_other_sizes_are_refused_with_those_that_the_model_offers(dimensions: int) -> None:
    with pytest.raises(BadInputError, match=rf"cannot be cut to {dimensions} dimensions \(it offers 2, 4, 8\)"):
        check_dimensions(dimensions, matryoshka(4, 2))


class KeepingSender(FakeSender):
    """It hands over the vectors, as `LocalSender` does, except those whose text has `theirs`."""

    def compute(self, space: Space, missing: Mapping[bytes, Input], *, lane: Lane) -> Computed:
        done = super().compute(space, missing, lane=lane)
        kept = {key: text for key, text in missing.items() if key not in done.errors and "theirs" not in str(text)}
        done.vectors = {key: vector(str(text))[0] for key, text in kept.items()}
        return done


@pytest.fixture
def looked_up(store: VectorStore, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of keys of each look-up."""
    real, counts = store.get_many, list[int]()

    def counted(keys: Sequence[bytes], *, dim: int) -> Found:
        counts.append(len(keys))
        return real(keys, dim=dim)

    monkeypatch.setattr(store, "get_many", counted)
    return counts


def test_vectors_that_the_sender_hands_over_are_not_read_again(store: VectorStore, looked_up: list[int]) -> None:
    put(store, ["hit"], vector("hit"))
    texts = ["long new", "hit", "new", "poison", "long new"]
    answer = Pipeline(store, KeepingSender(store)).embed(SPACE, texts)
    assert looked_up == [5]
    for i in (0, 1, 2, 4):
        assert (answer.vectors[i] == vector(texts[i])[0]).all()
    assert answer.outcomes == [COMPUTED, HIT, COMPUTED, FAILED, COALESCED]
    assert answer.truncated.tolist() == [True, False, False, False, True]
    assert answer.tokens.tolist() == [3, 3, 3, 0, 3]


def test_if_one_vector_is_not_handed_over_all_are_read(store: VectorStore, looked_up: list[int]) -> None:
    answer = Pipeline(store, KeepingSender(store)).embed(SPACE, ["new", "theirs"])
    assert looked_up == [2, 2]
    assert (answer.vectors == np.concatenate([vector("new"), vector("theirs")])).all()
