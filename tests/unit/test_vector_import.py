"""Vectors from elsewhere: only those that this model would compute get into the cache."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from semel import vector_import
from semel.errors import BadInputError, InvalidTextError
from semel.values.model import ModelEntry, Space
from semel.values.text import Outcome
from semel.values.vectors import Vectors
from semel.vector_import import Imported, Importer
from tests.support.local import LocalSemel, local_semel

MODELS = {"reranker": ModelEntry("fake:", kind="cross-encoder")}
SOURCE = "fake:?dim=8&max_tokens=20&fail_on=poison"


class WordCounter:
    """Counts words; what is above 20 is cut."""

    def __init__(self) -> None:
        self.counted: list[str] = []

    def count_tokens(self, space: Space, texts: Sequence[str]) -> list[tuple[int, bool]]:
        self.counted += texts
        return [(min(len(text.split(" ")), 20), len(text.split(" ")) > 20) for text in texts]


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalSemel]:
    """Another cache, from which the vectors come."""
    with local_semel(tmp_path_factory.mktemp("elsewhere"), SOURCE) as running:
        yield running


@pytest.fixture
def semel(tmp_path: Path) -> Iterator[LocalSemel]:
    with local_semel(tmp_path, SOURCE, more=MODELS) as running:
        yield running


@pytest.fixture
def importer(semel: LocalSemel) -> Importer:
    return Importer(semel.store, semel.pipeline, WordCounter())


def some(n: int, name: str = "text") -> list[str]:
    return [f"{name} number {i}" for i in range(n)]


def test_right_vectors_are_stored_and_are_hits_from_then_on(
    semel: LocalSemel, elsewhere: LocalSemel, importer: Importer
) -> None:
    texts = some(20)
    vectors = elsewhere.embed(*texts).vectors
    assert importer.take(semel.space(), texts, vectors) == Imported(stored=17, present=3)  # three were computed
    answer = semel.embed(*texts)
    assert answer.outcomes == [Outcome.HIT] * 20
    np.testing.assert_allclose(answer.vectors, vectors, atol=1e-6)


def test_the_tokens_of_each_text_are_stored_with_its_vector(
    semel: LocalSemel, elsewhere: LocalSemel, importer: Importer
) -> None:
    texts = [*some(5), "word " * 25]
    importer.take(semel.space(), texts, elsewhere.embed(*texts).vectors)
    answer = semel.embed(*texts)
    assert answer.tokens.tolist() == [3, 3, 3, 3, 3, 20]
    assert answer.truncated.tolist() == [False] * 5 + [True]


def test_texts_that_the_cache_has_keep_their_vectors_and_are_not_compared(
    semel: LocalSemel, importer: Importer
) -> None:
    kept = semel.embed("known").vectors
    assert importer.take(semel.space(), ["known"], -kept) == Imported(stored=0, present=1)
    np.testing.assert_array_equal(semel.embed("known").vectors, kept)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v[::-1], r"text 10 differs .*\(cosine -?0\.\d+, length 1.000 instead of 1.000\)"),
        (lambda v: v * 1.02, r"text 10 differs .*\(cosine 1.0000, length 1.020 instead of 1.000\)"),
        (lambda v: -v, r"text 10 differs .*\(cosine -1.0000, length 1.000 instead of 1.000\)"),
    ],
    ids=["another order", "another length", "the opposite"],
)
def test_vectors_of_something_else_are_refused_with_the_figures(
    semel: LocalSemel, elsewhere: LocalSemel, importer: Importer, change: Any, message: str
) -> None:
    texts = some(8)
    right = elsewhere.embed(*texts).vectors
    vectors: Vectors = change(right.copy())
    with pytest.raises(BadInputError, match=f"the vector of {message}; check that it comes from the same model"):
        importer.take(semel.space(), texts, vectors, first=10)
    np.testing.assert_allclose(semel.embed(*texts).vectors, right, atol=1e-6)


def test_the_first_and_the_last_unknown_text_are_compared(
    semel: LocalSemel, elsewhere: LocalSemel, importer: Importer
) -> None:
    texts = some(40)
    vectors = elsewhere.embed(*texts).vectors
    vectors[39] *= -1
    with pytest.raises(BadInputError, match="the vector of text 39 differs"):
        importer.take(semel.space(), texts, vectors)


@pytest.mark.parametrize(("value", "what"), [(np.nan, "not finite"), (0.0, "all zero")])
def test_an_unsound_vector_is_refused(
    semel: LocalSemel, elsewhere: LocalSemel, importer: Importer, value: float, what: str
) -> None:
    texts = some(9)
    vectors = elsewhere.embed(*texts).vectors
    vectors[4] = value
    with pytest.raises(BadInputError, match=f"vector 4 of 9 is {what}"):
        importer.take(semel.space(), texts, vectors)


def test_a_text_that_the_model_cannot_embed_is_refused(semel: LocalSemel, importer: Importer) -> None:
    with pytest.raises(BadInputError, match="text 7 cannot be embedded here: "):
        importer.take(semel.space(), ["poison"], np.ones((1, 8), np.float32), first=7)


def test_an_empty_text_is_named_by_its_position_in_the_whole_import(semel: LocalSemel, importer: Importer) -> None:
    with pytest.raises(InvalidTextError, match="text 101 is empty"):
        importer.take(semel.space(), ["fine", ""], np.ones((2, 8), np.float32), first=100)


def test_scores_of_a_cross_encoder_cannot_be_imported(semel: LocalSemel, importer: Importer) -> None:
    with pytest.raises(BadInputError, match="is a cross-encoder"):
        importer.take(semel.space("reranker"), ["a text"], np.ones((1, 1), np.float32))


# Files


def as_jsonl(path: Path, rows: list[Any]) -> Path:
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


def take(importer: Importer, semel: LocalSemel, path: Path) -> list[Imported]:
    return list(importer.take_file(semel.space(), path, max_text_bytes=1 << 20))


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_a_file_is_imported_in_parts_with_the_sums_so_far(
    semel: LocalSemel, elsewhere: LocalSemel, importer: Importer, tmp_path: Path, suffix: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(vector_import, "_SLICE", 8)
    texts = some(20)
    vectors = elsewhere.embed(*texts).vectors.tolist()
    path = tmp_path / f"rows{suffix}"
    if suffix == ".jsonl":
        as_jsonl(path, [{"text": t, "embedding": v, "more": 1} for t, v in zip(texts, vectors, strict=True)])
    else:
        pq.write_table(pa.table({"text": texts, "embedding": vectors}), path)
    sums = take(importer, semel, path)
    assert [done.stored + done.present for done in sums] == [8, 16, 20]
    assert semel.embed(*texts).outcomes == [Outcome.HIT] * 20
    assert take(importer, semel, path)[-1] == Imported(stored=0, present=20)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": "x"}, "row 3: embedding is not a list of 8 numbers"),
        ({"text": "x", "embedding": [1.0] * 7}, "row 3: embedding is not a list of 8 numbers"),
        ({"text": "x", "embedding": ["1"] * 8}, "row 3: embedding is not a list of 8 numbers"),
        ({"text": 5, "embedding": [1.0] * 8}, "row 3: text is not a string"),
        ([1], "row 3: a list instead of an object"),
        ({"text": "x", "embedding": [10**400, *[1] * 7]}, "rows 3 to 3: a number in an embedding is too large"),
    ],
)
def test_a_bad_row_is_named_with_the_number_of_rows_before_it(
    semel: LocalSemel, elsewhere: LocalSemel, importer: Importer, tmp_path: Path, row: Any, message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(vector_import, "_SLICE", 2)
    texts = some(2)
    good = [{"text": t, "embedding": v} for t, v in zip(texts, elsewhere.embed(*texts).vectors.tolist(), strict=True)]
    path = as_jsonl(tmp_path / "rows.jsonl", [*good, row])
    with pytest.raises(BadInputError, match=rf"{message}.* \(2 rows before it were imported\)"):
        take(importer, semel, path)
    assert semel.embed(*texts).outcomes == [Outcome.HIT] * 2


def test_an_empty_file_imports_nothing(semel: LocalSemel, importer: Importer, tmp_path: Path) -> None:
    assert take(importer, semel, as_jsonl(tmp_path / "rows.jsonl", [])) == []


def test_a_swap_of_two_rows_is_found_when_all_are_compared(
    semel: LocalSemel, elsewhere: LocalSemel, importer: Importer
) -> None:
    texts = some(40, "swapped")
    vectors = elsewhere.embed(*texts).vectors
    vectors[[7, 23]] = vectors[[23, 7]]
    with pytest.raises(BadInputError, match="the vector of text 7 differs from the one"):
        importer.take(semel.space(), texts, vectors, share=1.0)


def test_an_import_reports_how_many_texts_were_compared(
    semel: LocalSemel, elsewhere: LocalSemel, importer: Importer
) -> None:
    texts = some(40, "compared")
    assert importer.take(semel.space(), texts, elsewhere.embed(*texts).vectors, share=1.0).compared == 40


@pytest.mark.parametrize(("share", "count"), [(0.0, 3), (0.05, 5), (0.1, 10), (1.0, 100)])
def test_the_share_decides_how_many_texts_are_compared(importer: Importer, share: float, count: int) -> None:
    picked = importer._pick(range(100), share)
    assert (len(picked), picked[0], picked[-1]) == (count, 0, 99)
    assert importer._pick([5], share) == [5]
    assert importer._pick([], share) == []
