"""Public bugs of other embedding caches, each as a test that a naive design fails.

Where the bug was: LangChain CacheBackedEmbeddings (key of text alone, NaN stored), GPTCache (no revision), ollama and
vLLM caches (prompt and pooling shared), infinity (key without dtype), several "partial hit" assemblies that shift rows.
"""

from pathlib import Path

import numpy as np
import pytest

from semel.cache.stats import CacheStats
from semel.errors import InvalidTextError, StorageFullError
from semel.values.model import ModelEntry
from semel.values.text import Outcome
from tests.support.local import local_semel

PROMPTED = {"fake": ModelEntry("fake:?dim=8", prompts={"query": "query: ", "document": "passage: "})}


def test_same_name_with_other_weights_is_another_space(tmp_path: Path) -> None:
    with local_semel(tmp_path, "fake:?dim=8&weights=a") as semel:
        old = semel.embed("text")
    with local_semel(tmp_path, "fake:?dim=8&weights=b") as semel:
        new = semel.embed("text")
    assert new.outcomes == [Outcome.COMPUTED]
    assert not np.allclose(old.vectors, new.vectors)


@pytest.mark.parametrize(
    "other",
    [
        ModelEntry("fake:?dim=8&max_tokens=2"),
        ModelEntry("fake:?dim=16"),
        ModelEntry("fake:?dim=8", precision="float32"),  # type: ignore[arg-type]
    ],
    ids=["max tokens", "dimensions", "precision"],
)
def test_another_configuration_of_a_model_shares_nothing(tmp_path: Path, other: ModelEntry) -> None:
    with local_semel(tmp_path, more={"other": other}) as semel:
        semel.embed("one two three")
        assert semel.embed("one two three", model="other").outcomes == [Outcome.COMPUTED]


def test_query_and_document_prompts_do_not_share_an_entry(tmp_path: Path) -> None:
    with local_semel(tmp_path, more=PROMPTED) as semel:
        query = semel.embed("text", prompt_name="query")
        document = semel.embed("text", prompt_name="document")
        assert document.outcomes == [Outcome.COMPUTED]
        assert not np.allclose(query.vectors, document.vectors)


def test_prompt_and_text_are_not_just_joined(tmp_path: Path) -> None:
    with local_semel(tmp_path, more=PROMPTED) as semel:
        semel.embed("query: text")
        assert semel.embed("text", prompt_name="query").outcomes == [Outcome.COMPUTED]


def test_a_partial_hit_does_not_shift_rows(tmp_path: Path) -> None:
    with local_semel(tmp_path) as semel:
        truth = {t: semel.embed(t).vectors[0] for t in ("b", "d")}
        mixed = semel.embed("a", "b", "c", "d", "a")
        assert [o.value for o in mixed.outcomes] == ["computed", "hit", "computed", "hit", "coalesced"]
        assert (mixed.vectors[[1, 3]] == np.stack([truth["b"], truth["d"]])).all()
        assert (mixed.vectors[0] == mixed.vectors[4]).all()
        for row, text in zip(mixed.vectors, "abcda", strict=True):
            assert (row == semel.embed(text).vectors[0]).all()


def test_an_item_that_fails_does_not_shift_rows(tmp_path: Path) -> None:
    with local_semel(tmp_path, "fake:?dim=8&fail_on=poison") as semel:
        mixed = semel.embed("a", "some poison", "c")
        assert list(mixed.errors) == [1]
        assert np.isnan(mixed.vectors[1]).all()
        assert (mixed.vectors[[0, 2]] == semel.embed("a", "c").vectors).all()


def test_an_invalid_item_is_named_and_nothing_is_computed(tmp_path: Path) -> None:
    with local_semel(tmp_path) as semel:
        with pytest.raises(InvalidTextError, match="text 1 is empty"):
            semel.embed("a", "", "c")
        assert semel.engine.stats.texts == 0


def test_nan_is_never_stored(tmp_path: Path) -> None:
    with local_semel(tmp_path, "fake:?dim=8&nan_on=void") as semel:
        assert semel.embed("a void", "fine").errors[0].code == "invalid_vector"
        assert CacheStats(semel.db).by_space()[0].entries == 1
        assert list(semel.embed("a void").errors) == [0]


def test_duplicates_in_one_call_are_computed_once(tmp_path: Path) -> None:
    with local_semel(tmp_path) as semel:
        semel.embed("warm-up of the engine's counters")
        before = semel.engine.stats.texts
        same = semel.embed(*["same"] * 50, "other")
        assert semel.engine.stats.texts - before == 2
        assert same.count(Outcome.COMPUTED) == 2
        assert (same.vectors[:50] == same.vectors[0]).all()


@pytest.mark.parametrize("other", ["TEXT", "text ", " text", "te xt", "text\n"])
def test_nothing_is_lower_cased_or_stripped(tmp_path: Path, other: str) -> None:
    with local_semel(tmp_path) as semel:
        semel.embed("text")
        assert semel.embed(other).outcomes == [Outcome.COMPUTED]


def test_a_hit_is_what_was_computed_bit_for_bit(tmp_path: Path) -> None:
    with local_semel(tmp_path) as semel:
        computed = semel.embed("a", "b").vectors
    with local_semel(tmp_path) as semel:
        hit = semel.embed("b", "a")
        assert hit.outcomes == [Outcome.HIT, Outcome.HIT]
        assert (hit.vectors == computed[::-1]).all()
        assert semel.models.loaded() == []  # hits alone load no model


def test_an_error_in_the_middle_keeps_what_was_computed(tmp_path: Path) -> None:
    texts = [f"{'w ' * 100}{i}" for i in range(200)]
    with local_semel(tmp_path, "fake:?dim=8") as semel:
        real, calls = semel.store.put_many, 0

        def put_many(*args: object, **kwargs: object) -> int:
            nonlocal calls
            calls += 1
            if calls == 3:
                raise StorageFullError("here")
            return real(*args, **kwargs)  # type: ignore[arg-type]

        semel.store.put_many = put_many  # type: ignore[method-assign]
        with pytest.raises(StorageFullError):
            semel.embed(*texts)
    with local_semel(tmp_path) as semel:
        assert 0 < semel.embed(*texts).count(Outcome.HIT) < 200


def test_hits_report_truncated_texts_too(tmp_path: Path) -> None:
    with local_semel(tmp_path, "fake:?dim=8&max_tokens=3") as semel:
        assert semel.embed("a b c d", "a").truncated.tolist() == [True, False]
        again = semel.embed("a b c d", "a")
        assert again.truncated.tolist() == [True, False]
        assert again.tokens.tolist() == [3, 1]


def test_refused_truncation_fails_that_text_only(tmp_path: Path) -> None:
    with local_semel(tmp_path, "fake:?dim=8&max_tokens=3") as semel:
        refused = semel.embed("a b c d", "a", truncate=False)
        assert refused.errors[0].code == "text_too_long"
        assert list(refused.outcomes) == [Outcome.FAILED, Outcome.COMPUTED]
