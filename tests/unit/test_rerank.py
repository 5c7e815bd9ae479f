"""Rerank with a cross-encoder and with an embedding model, on the fake model in this process."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest

from semel.cache.catalog import Catalog
from semel.errors import BadInputError, InvalidTextError, OverloadedError, UnavailableError, UnknownModelError
from semel.rerank import Ranked, Reranker, best_first, no_score, scores_of
from semel.steps import finish
from semel.values.model import ModelEntry
from semel.values.text import ItemError, Outcome, Pair
from semel.values.variant import Variant
from semel.values.vectors import cosines
from tests.support.local import LocalSemel, local_semel

MODELS = {
    "reranker": ModelEntry("fake:?fail_on=poison&max_tokens=20", kind="cross-encoder"),
    "sigmoid": ModelEntry("fake:?activation=Sigmoid", kind="cross-encoder"),
    "prompted": ModelEntry("fake:?dim=8", prompts={"query": "find ", "document": "text "}),
    "fragile": ModelEntry("fake:?dim=8&weights=b&fail_on=poison"),
}

Rank: TypeAlias = Callable[..., Ranked]


@pytest.fixture(scope="module")
def semel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalSemel]:
    folder: Path = tmp_path_factory.mktemp("rerank")
    with local_semel(folder, more=MODELS) as running:
        yield running


@pytest.fixture(scope="module")
def catalog(semel: LocalSemel) -> Catalog:
    made = Catalog(semel.db, default_model="fake")
    for name in ("fake", *MODELS):
        made.publish(list(semel.models.spaces(name).values()), device="cpu")
    return made


@pytest.fixture
def reranker(semel: LocalSemel, catalog: Catalog) -> Reranker:
    return Reranker(semel.pipeline, catalog)


@pytest.fixture
def rank(semel: LocalSemel, reranker: Reranker) -> Rank:
    def ranked(model: str | None, query: str, documents: list[str], **options: Any) -> Ranked:
        return finish(reranker.rank(model, query, documents, **options), semel.sender)

    return ranked


def test_a_cross_encoder_scores_each_document_with_the_query(rank: Rank) -> None:
    ranked = rank("reranker", "red fox", ["a dog", "the red fox", "a fox"])
    assert (ranked.model, ranked.kind) == ("reranker", "cross-encoder")
    assert ranked.scores.tolist() == [0.0, 1.0, 0.5]
    assert ranked.scores.dtype == np.float32
    assert best_first(ranked.scores) == [1, 2, 0]


def test_a_score_is_computed_once(rank: Rank) -> None:
    documents = ["scored once", "scored twice"]
    rank("reranker", "once", documents[:1])
    (part,) = rank("reranker", "once", documents).parts
    assert part.outcomes == [Outcome.HIT, Outcome.COMPUTED]


def test_an_embedding_model_scores_by_the_cosine_under_its_prompts(rank: Rank, semel: LocalSemel) -> None:
    ranked = rank("prompted", "fox", ["a fox", "a dog"])
    query = semel.embed("fox", model="prompted", prompt_name="query").vectors[0]
    documents = semel.embed("a fox", "a dog", model="prompted", prompt_name="document").vectors
    assert ranked.kind == "embedding similarity"
    np.testing.assert_allclose(ranked.scores, cosines(query, documents), atol=1e-6)


def test_a_model_without_prompts_computes_query_and_documents_in_one_part(rank: Rank) -> None:
    ranked = rank(None, "same words", ["same words", "other words"])
    assert ranked.model == "fake", "the default model is named"
    assert len(ranked.parts) == 1
    assert ranked.scores[0] == pytest.approx(1.0, abs=1e-6)
    assert ranked.tokens == 6


def test_the_inputs_of_a_cross_encoder_are_pairs_and_those_of_an_embedding_model_start_with_the_query(
    reranker: Reranker,
) -> None:
    kind, inputs = reranker.inputs("reranker", "q", ["a", "b"])
    assert (kind, [item for _, item in inputs]) == ("cross-encoder", [Pair("q", "a"), Pair("q", "b")])
    kind, inputs = reranker.inputs("prompted", "q", ["a", "b"])
    assert (kind, [(space.prompt_name, item) for space, item in inputs]) == (
        "embedding similarity", [("query", "q"), ("document", "a"), ("document", "b")],
    )  # fmt: skip


@pytest.mark.parametrize("model", ["reranker", "fragile"])
def test_a_document_that_fails_is_named_by_its_position(rank: Rank, model: str) -> None:
    with pytest.raises(BadInputError, match="document 1 cannot be scored: "):
        rank(model, "query", ["fine", "poison", "fine too"])


def test_a_query_that_fails_is_named(rank: Rank) -> None:
    with pytest.raises(BadInputError, match="the query cannot be scored: "):
        rank("fragile", "poison", ["fine"])


def test_a_pair_above_the_limit_fails_only_if_truncation_is_not_allowed(rank: Rank) -> None:
    long = "word " * 20
    assert len(rank("reranker", "q", [long]).scores) == 1
    with pytest.raises(BadInputError, match="document 0 cannot be scored: the text is longer than the model reads"):
        rank("reranker", "q", [long], truncate=False)


def test_an_empty_query_and_an_empty_document_are_refused_by_name(reranker: Reranker) -> None:
    with pytest.raises(BadInputError, match="the query is empty"):
        reranker.inputs("reranker", "", ["a"])
    with pytest.raises(InvalidTextError, match="text 1 is empty"):
        reranker.inputs("reranker", "q", ["a", ""])


def test_an_unknown_model_is_refused(rank: Rank) -> None:
    with pytest.raises(UnknownModelError, match="there is no model named 'nothing'"):
        rank("nothing", "q", ["a"])


def test_vectors_of_two_weights_are_never_compared(
    semel: LocalSemel, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the publication of one prompt and the next, the catalog may show both weights."""
    spaces = {"query": semel.space("prompted", "query"), "document": semel.space("fragile")}
    monkeypatch.setattr(catalog, "space_for_input", lambda _model, kind: spaces[kind])
    with pytest.raises(UnavailableError, match="the weights of 'prompted' are being replaced; try again in a second"):
        Reranker(semel.pipeline, catalog).inputs("prompted", "q", ["a"])


def test_equal_scores_keep_the_order_of_the_documents() -> None:
    scores = np.array([0.5, 0.9] * 50, np.float32)  # a sort that is not stable shuffles more than 16
    assert best_first(scores) == [*range(1, 100, 2), *range(0, 100, 2)]


def test_scores_of_a_cross_encoder_are_its_logits_after_its_activation(semel: LocalSemel) -> None:
    logits = np.array([[0.0], [2.0]], np.float32)
    assert scores_of(semel.space("sigmoid"), logits).tolist() == pytest.approx([0.5, 0.8808], abs=1e-4)
    assert scores_of(semel.space("reranker"), logits).tolist() == [0.0, 2.0]
    for model in ("sigmoid", "reranker"):
        assert scores_of(semel.space(model), logits, raw=True).tolist() == [0.0, 2.0]


def test_scores_of_an_embedding_model_are_cosines_whether_raw_or_not(semel: LocalSemel) -> None:
    vectors = np.array([[3, 4], [6, 8], [4, -3]], np.float32)
    for raw in (True, False):
        assert scores_of(semel.space("prompted"), vectors, raw=raw).tolist() == pytest.approx([1.0, 0.0], abs=1e-6)


def test_raw_scores_are_logits_from_the_same_rows(rank: Rank) -> None:
    documents = ["an owl", "a fox", "the red fox"]
    scores, logits = rank("sigmoid", "red fox", documents), rank("sigmoid", "red fox", documents, raw=True)
    assert logits.scores.tolist() == [0.0, 0.5, 1.0]
    assert scores.scores.tolist() == pytest.approx([0.5, 0.6225, 0.7311], abs=1e-4)
    assert logits.parts[0].outcomes == [Outcome.HIT] * 3


@pytest.mark.parametrize("model", ["prompted", "reranker"])
def test_equal_documents_have_equal_scores_at_every_position(rank: Rank, model: str) -> None:
    scores = rank(model, "which fox", [f"a fox {i % 2}" for i in range(74)]).scores
    assert (len(set(scores[::2].tolist())), len(set(scores[1::2].tolist()))) == (1, 1)


def test_a_variant_reads_pairs_in_another_way(rank: Rank) -> None:
    documents = ["one two red fox", "red fox one two"]
    assert rank("reranker", "red fox", documents).scores.tolist() == [1.0, 1.0]
    cut = rank("reranker", "red fox", documents, variant=Variant(document_tokens=2))
    assert cut.scores.tolist() == [0.0, 1.0]
    assert cut.parts[0].truncated.tolist() == [True, True]


def test_the_query_of_an_embedding_model_is_not_cut_with_the_documents(reranker: Reranker, semel: LocalSemel) -> None:
    variant = Variant(max_tokens=9, document_tokens=2)
    _, inputs = reranker.inputs("prompted", "q", ["a"], variant=variant)
    query, document = (semel.space("prompted", name) for name in ("query", "document"))
    assert [space for space, _ in inputs] == [
        query.with_variant(Variant(max_tokens=9)),
        document.with_variant(variant),
    ]


def test_a_fault_of_the_service_keeps_its_class() -> None:
    error = no_score("embedding similarity", 2, ItemError("rate_limit_exceeded", "too much work waits"))
    assert isinstance(error, OverloadedError)
    assert str(error) == "document 1 cannot be scored: too much work waits"
