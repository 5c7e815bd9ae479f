"""How the MLX reranker finds the logits of pairs; numpy stands in for mlx.core, and no model is loaded."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from semel.backends.base import SAMPLE_PAIRS, Tokens
from semel.backends.mlx.rerank import MlxReranker
from semel.values.text import Pair
from semel.values.variant import AS_DEFINED, Variant
from tests.support.model_files import source, write_model


class Classifier:
    """The logit of a pair is the sum of its document's ids."""

    def __call__(self, ids: np.ndarray, mask: np.ndarray, segments: np.ndarray) -> np.ndarray:
        return (ids * mask * segments).sum(axis=1, keepdims=True).astype(np.float32)


class LanguageModel:
    """The logits of a token are its own id for token 1, half of it for token 2, and 99 for the others."""

    def __call__(self, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        return ids[:, :, None].astype(np.float32)

    def logits(self, hidden: np.ndarray) -> np.ndarray:
        last = hidden[:, :1]
        return np.concatenate([np.full_like(last, 99), last, last / 2, np.full_like(last, 99)], axis=1)


def reranker(folder: Path, model: Any) -> MlxReranker:
    write_model(folder, architectures=["BertForSequenceClassification"])
    backend = MlxReranker(source(folder, kind="cross-encoder"))
    backend._mx = SimpleNamespace(array=np.asarray, arange=np.arange, float32=np.float32)
    backend._model = model
    backend._tokenizer = SimpleNamespace(pad_id=9)  # type: ignore[assignment]
    return backend


def pair(query: list[int], document: list[int]) -> Tokens:
    segments = [0] * len(query) + [1] * len(document)
    return Tokens([*query, *document], truncated=False, segments=segments)


def test_a_classifier_sees_the_segments_and_no_further_rows(tmp_path: Path) -> None:
    batch = [pair([7], [1, 2]), *[pair([7, 7], [i % 9]) for i in range(16)]]
    scores = reranker(tmp_path, Classifier()).forward(batch)
    assert (scores.shape, scores.dtype) == ((17, 1), np.dtype(np.float32))
    assert scores[:3, 0].tolist() == [3, 0, 1]


@pytest.mark.parametrize(("no", "expected"), [(2, [2.0, 4.0]), (None, [4.0, 8.0])])
def test_a_language_model_answers_after_the_last_token(tmp_path: Path, no: int | None, expected: list[float]) -> None:
    """The logit of a pair is that of "yes", here token 1, minus that of "no" if there is one."""
    backend = reranker(tmp_path, LanguageModel())
    backend._template = SimpleNamespace()  # type: ignore[assignment]
    backend._yes, backend._no = 1, no
    scores = backend.forward([pair([1, 2, 3], [4]), pair([3], [8])])
    assert scores[:, 0].tolist() == expected


def test_pairs_are_read_by_the_template_if_there_is_one(tmp_path: Path) -> None:
    backend, seen = reranker(tmp_path, None), list[Any]()

    def tokenize(pairs: Any, **options: Any) -> list[Tokens]:
        seen.append((pairs, options))
        return [Tokens([1], truncated=False)]

    pairs, left, short = [Pair("query", "the document")], Variant(truncate_side="left"), Variant(document_tokens=1)
    backend._tokenizer = SimpleNamespace(
        tokenize_pairs=tokenize,
        with_short_documents=lambda pairs, variant, then: then([Pair("query", "the")] if variant == short else pairs),
    )  # type: ignore[assignment]
    backend.tokenize(pairs, prompt="judge", variant=left)
    assert seen == [(pairs, {"prompt": "judge", "variant": left})]
    backend._template = SimpleNamespace(tokenize=tokenize)  # type: ignore[assignment]
    backend.tokenize(pairs)
    backend.tokenize(pairs, prompt="judge", variant=short)
    assert seen[1] == (pairs, {"prompt": "", "variant": AS_DEFINED})
    assert seen[2] == ([Pair("query", "the")], {"prompt": "judge", "variant": short})


def test_the_samples_are_pairs(tmp_path: Path) -> None:
    assert reranker(tmp_path, None).samples() is SAMPLE_PAIRS
