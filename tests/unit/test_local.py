"""A pipeline in this process, on the cache of the settings."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from semel.errors import (
    BackendError,
    BadInputError,
    InvalidTextError,
    ModelLoadError,
    UnknownModelError,
    UnknownPromptError,
)
from semel.local import Local
from semel.settings import load_settings
from tests.support.cli import FAKE_MODELS


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working folder with a semel.toml, and a cache of its own."""
    monkeypatch.setenv("SEMEL_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "semel.toml").write_text(FAKE_MODELS)


def test_what_was_computed_is_a_hit_when_it_is_opened_again() -> None:
    settings = load_settings()
    runs = []
    for _ in range(2):
        with Local(settings=settings, device="auto") as here:
            runs.append(here.pipeline.embed(here.space("fake", ""), ["one", "two"]))
    first, again = runs
    assert [outcome.value for outcome in first.outcomes] == ["computed"] * 2
    assert [outcome.value for outcome in again.outcomes] == ["hit"] * 2
    np.testing.assert_array_equal(first.vectors, again.vectors)


def test_a_prompt_has_a_space_of_its_own() -> None:
    with Local(settings=load_settings(), device="auto") as here:
        plain, query = here.space("prompted", ""), here.space("prompted", "query")
    assert (plain.prompt_name, query.prompt_name) == ("", "query")
    assert plain.fingerprint != query.fingerprint


@pytest.mark.parametrize(
    ("model", "input_type", "prompt"),
    [
        ("prompted", "document", "document"),
        ("prompted", "query", "query"),
        ("prompted", "none", ""),
        ("fake", "document", ""),
    ],
)
def test_the_kind_of_the_texts_chooses_the_prompt(model: str, input_type: str, prompt: str) -> None:
    with Local(settings=load_settings(), device="auto") as here:
        assert here.space(model, "", input_type).prompt_name == prompt


def test_a_prompt_that_is_named_wins_over_the_kind_of_the_texts() -> None:
    with Local(settings=load_settings(), device="auto") as here:
        assert here.space("prompted", "query", "document").prompt_name == "query"


def test_an_unknown_kind_of_text_is_refused_with_those_that_exist() -> None:
    with (
        Local(settings=load_settings(), device="auto") as here,
        pytest.raises(BadInputError, match=r"'poem' \(known: .*none\)"),
    ):
        here.space("prompted", "", "poem")


def test_an_unknown_prompt_is_named_with_those_that_exist() -> None:
    with Local(settings=load_settings(), device="auto") as here:
        with pytest.raises(UnknownPromptError, match=r"model 'prompted' has no prompt 'q' \(it has: document, query\)"):
            here.space("prompted", "q")
        with pytest.raises(UnknownPromptError, match=r"model 'fake' has no prompt 'q' \(it has: none\)"):
            here.space("fake", "q")


def test_models_that_are_unknown_or_have_no_files_are_refused() -> None:
    models = {"absent": {"source": "/nowhere/at/all"}}
    with Local(settings=load_settings(models=models), device="auto") as here:
        with pytest.raises(UnknownModelError):
            here.space("nope", "")
        with pytest.raises(ModelLoadError):
            here.space("absent", "")


def test_tokens_are_counted_with_the_prompt_and_up_to_the_limit() -> None:
    with Local(settings=load_settings(), device="auto") as here:
        assert here.count_tokens(here.space("fake", ""), ["two words", "w " * 50]) == [(2, False), (20, True)]
        assert here.count_tokens(here.space("prompted", "query"), ["two words"]) == [(3, False)]


def test_nothing_runs_on_after_the_block() -> None:
    with Local(settings=load_settings(), device="auto") as here:
        space = here.space("fake", "")
    with pytest.raises(BackendError):
        here.pipeline.embed(space, ["too late"])


def test_texts_are_embedded_as_the_client_does() -> None:
    with Local(settings=load_settings()) as here:
        vectors = here.embed(["one", "two", "one"])
        assert (vectors.shape, vectors.dtype) == ((3, 16), np.float32)
        np.testing.assert_array_equal(vectors[0], vectors[2])
        np.testing.assert_array_equal(here.embed("two"), vectors[1:2])
        np.testing.assert_array_equal(
            here.embed(["cat"], model="prompted", input_type="query"), here.embed(["find cat"])
        )
        np.testing.assert_array_equal(here.embed(["one two three"], max_tokens=2), here.embed(["one two"]))
        assert np.linalg.norm(here.embed(["one"], normalize=False)) > 2


def test_a_table_is_embedded_by_its_column() -> None:
    with Local(settings=load_settings()) as here:
        np.testing.assert_array_equal(here.embed(pa.table({"text": ["one"]})), here.embed(["one"]))


def test_a_text_without_a_vector_is_named() -> None:
    with Local(settings=load_settings()) as here:
        with pytest.raises(InvalidTextError, match="text 1 is empty"):
            here.embed(["fine", ""])
        with pytest.raises(InvalidTextError, match=r"text 1 has no vector: .*longer than the model reads"):
            here.embed(["fine", "w " * 50], truncate=False)
        with pytest.raises(BadInputError, match="cannot be cut to 7 dimensions"):
            here.embed(["fine"], dimensions=7)


def test_documents_are_reranked_by_either_kind_of_model() -> None:
    models = {"reranker": {"source": "fake:", "kind": "cross-encoder"}}
    with Local(settings=load_settings(models=models)) as here:
        ranked = here.rerank("a b", ["c", "a b", "a"], model="reranker", top_n=2)
        assert [(each.index, each.score) for each in ranked] == [(1, 1.0), (2, 0.5)]
        assert here.rerank("x", ["y", "x"])[0].index == 1


def test_the_package_offers_it() -> None:
    import semel

    assert semel.Local is Local


KINDS = """
[models.labels]
source = "fake:?dim=3&activation=Softmax&fail_on=poison"
kind = "classifier"
[models.sparse]
source = "fake:?fail_on=poison"
kind = "sparse"
"""


@pytest.fixture
def kinds(tmp_path: Path) -> Iterator[Local]:
    (tmp_path / "semel.toml").write_text(FAKE_MODELS + KINDS)
    with Local(settings=load_settings()) as here:
        yield here


def test_sparse_vectors_are_computed_here(kinds: Local) -> None:
    first, second = kinds.embed_sparse(["one two two", "one"], model="sparse")
    assert sorted(first.values.tolist()) == pytest.approx([np.log(2), np.log(3)])
    assert (len(second.indices), np.isin(second.indices, first.indices).all()) == (1, True)
    with pytest.raises(InvalidTextError, match="text 1 has no vector"):
        kinds.embed_sparse(["one", "poison"], model="sparse")


def test_labels_are_computed_here_for_texts_and_pairs(kinds: Local) -> None:
    text, pair = kinds.classify(["a text", ("a text", "another")], model="labels")
    assert sum(text.scores.values()) == pytest.approx(1)
    assert (text.label, text.score) == max(text.scores.items(), key=lambda each: each[1])
    assert text.scores != pair.scores
    assert kinds.classify("a text", model="labels") == [text]
    (raw,) = kinds.classify(["a text"], model="labels", raw_scores=True)
    assert (raw.label, raw.scores != text.scores) == (text.label, True)


def test_without_a_name_the_only_model_of_the_kind_is_meant(kinds: Local) -> None:
    assert len(kinds.embed_sparse(["one"])[0].indices) == 1
    assert kinds.classify(["a text"]) == kinds.classify(["a text"], model="labels")


@pytest.mark.parametrize("call", ["embed", "embed_sparse", "classify"])
def test_a_model_of_another_kind_is_refused(kinds: Local, call: str) -> None:
    model = {"embed": "labels", "embed_sparse": "fake", "classify": "sparse"}[call]
    with pytest.raises(BadInputError, match=f"model '{model}' "):
        getattr(kinds, call)(["a text"], model=model)


def test_progress_counts_hits_and_what_is_computed(kinds: Local, capsys: pytest.CaptureFixture[str]) -> None:
    kinds.embed(["one", "two"], model="fake")
    kinds.embed(["one", "two", "three", "three"], model="fake", show_progress=True)
    assert "4/4 2 hits" in capsys.readouterr().err
    kinds.embed(["four"], model="fake")
    assert capsys.readouterr().err == ""
