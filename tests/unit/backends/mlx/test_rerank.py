"""How the MLX reranker turns logits into scores; numpy stands in for mlx.core, and no model is loaded."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from semel.backends.base import SAMPLE_PAIRS, Tokens
from semel.backends.mlx.rerank import MlxReranker
from semel.values.text import Pair
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
    backend._activation = lambda logits: logits * 10
    return backend


def pair(query: list[int], document: list[int]) -> Tokens:
    segments = [0] * len(query) + [1] * len(document)
    return Tokens([*query, *document], truncated=False, segments=segments)


def test_a_classifier_sees_the_segments_and_no_further_rows(tmp_path: Path) -> None:
    batch = [pair([7], [1, 2]), *[pair([7, 7], [i % 9]) for i in range(16)]]
    scores = reranker(tmp_path, Classifier()).forward(batch)
    assert (scores.shape, scores.dtype) == ((17, 1), np.dtype(np.float32))
    assert scores[:3, 0].tolist() == [30, 0, 10]


@pytest.mark.parametrize(("no", "expected"), [(2, [20.0, 40.0]), (None, [40.0, 80.0])])
def test_a_language_model_answers_after_the_last_token(tmp_path: Path, no: int | None, expected: list[float]) -> None:
    """The score is the logit of "yes", here token 1, minus that of "no" if there is one."""
    backend = reranker(tmp_path, LanguageModel())
    backend._template = SimpleNamespace()  # type: ignore[assignment]
    backend._yes, backend._no = 1, no
    scores = backend.forward([pair([1, 2, 3], [4]), pair([3], [8])])
    assert scores[:, 0].tolist() == expected


def test_pairs_are_read_by_the_template_if_there_is_one(tmp_path: Path) -> None:
    backend = reranker(tmp_path, None)
    backend._tokenizer = SimpleNamespace(tokenize_pairs=lambda pairs, prompt: ("tokenizer", pairs, prompt))  # type: ignore[assignment]
    pairs = [Pair("query", "document")]
    assert backend.tokenize(pairs, prompt="judge") == ("tokenizer", pairs, "judge")
    backend._template = SimpleNamespace(tokenize=lambda pairs, prompt: ("template", pairs, prompt))  # type: ignore[assignment]
    assert backend.tokenize(pairs) == ("template", pairs, "")


def test_the_samples_are_pairs(tmp_path: Path) -> None:
    assert reranker(tmp_path, None).samples() is SAMPLE_PAIRS
