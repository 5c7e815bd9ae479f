"""What the torch reranker does around a cross-encoder, with a stand-in for the library's model."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from semel.backends.base import SAMPLE_PAIRS, Tokens
from semel.backends.torch.rerank import TorchReranker
from semel.errors import BadInputError, ModelLoadError
from semel.values.model import Precision
from semel.values.text import Pair
from tests.support.model_files import source, write_model

LIMIT = 6
SEPARATOR = 0


class CrossEncoder:
    """Reads a pair as words with a separator, padded on the left; scores by the sum of the ids."""

    num_labels = 1

    def __init__(self, *, segments: bool = True) -> None:
        self._segments = segments
        self.prompts: list[str | None] = []
        self.inputs: dict[str, Any] = {}
        self.lock: Any = None
        self.tokenizer = SimpleNamespace(pad=self._pad)

    def preprocess(
        self, pairs: Sequence[Pair], *, prompt: str | None = None, processing_kwargs: Any = None
    ) -> dict[str, Any]:
        assert self.lock is None or self.lock.locked()
        self.prompts.append(prompt)
        cut = LIMIT if processing_kwargs is None else 1000
        rows = []
        for query, document in pairs:
            ids = [len(word) for word in query.split()] + [SEPARATOR] + [len(word) for word in document.split()]
            segments = [0] * (len(query.split()) + 1) + [1] * len(document.split())
            rows.append((ids[:cut], segments[:cut]))
        longest = max(len(ids) for ids, _ in rows)
        left = [longest - len(ids) for ids, _ in rows]
        features = {
            "input_ids": torch.tensor([[99] * pad + ids for pad, (ids, _) in zip(left, rows, strict=True)]),
            "attention_mask": torch.tensor([[0] * pad + [1] * (longest - pad) for pad in left]),
        }
        if self._segments:
            features["token_type_ids"] = torch.tensor([[0] * pad + s for pad, (_, s) in zip(left, rows, strict=True)])
        return features

    def _pad(self, rows: dict[str, list[list[int]]], *, return_tensors: str) -> dict[str, Any]:
        assert return_tensors == "pt"
        longest = max(map(len, rows["input_ids"]))
        return {name: torch.tensor([row + [0] * (longest - len(row)) for row in rows[name]]) for name in rows}

    def __call__(self, features: dict[str, Any]) -> dict[str, Any]:
        self.inputs = features
        return {"scores": features["input_ids"].sum(dim=1)}

    def activation_fn(self, scores: Any) -> Any:
        return scores / 10


def reranker(folder: Path, device: str = "cpu", *, segments: bool = True, **entry: Any) -> TorchReranker:
    write_model(folder, architectures=["BertForSequenceClassification"])
    backend = TorchReranker(source(folder, kind="cross-encoder", **entry), device=device)
    backend._torch = torch
    backend._model = CrossEncoder(segments=segments)
    backend._model.lock = backend._tokenizing
    backend._max_tokens = LIMIT
    backend._other_inputs = {"task": "rerank"}
    return backend


def test_pairs_become_rows_without_padding(tmp_path: Path) -> None:
    short, long = reranker(tmp_path).tokenize([Pair("a", "bb"), Pair("a bb", "ccc dddd")])
    assert short == Tokens([1, 0, 2], truncated=False, segments=[0, 0, 1])
    assert long == Tokens([1, 2, 0, 3, 4], truncated=False, segments=[0, 0, 0, 1, 1])


def test_a_model_without_segments_gets_none(tmp_path: Path) -> None:
    (tokens,) = reranker(tmp_path, segments=False).tokenize([Pair("a", "bb")])
    assert tokens.segments == ()


@pytest.mark.parametrize(("words", "truncated"), [(3, False), (4, False), (5, True), (50, True)])
def test_only_a_pair_above_the_limit_is_truncated(tmp_path: Path, words: int, truncated: bool) -> None:
    """A pair of exactly the limit, here four words in the document, is as long as one that was cut."""
    (tokens,) = reranker(tmp_path).tokenize([Pair("a", "b " * words)])
    assert (len(tokens.ids), tokens.truncated) == (min(words + 2, LIMIT), truncated)
    assert len(tokens.segments) == len(tokens.ids)


def test_only_the_long_pairs_are_marked(tmp_path: Path) -> None:
    tokens = reranker(tmp_path).tokenize([Pair("a", "b " * 9), Pair("a", "b"), Pair("a", "b " * 4)])
    assert [each.truncated for each in tokens] == [True, False, False]


def test_a_prompt_is_passed_on_and_an_empty_one_is_none(tmp_path: Path) -> None:
    backend = reranker(tmp_path)
    backend.tokenize([Pair("a", "b")])
    backend.tokenize([Pair("a", "b")], prompt="judge")
    assert backend._model.prompts == [None, "judge"]


def test_a_text_instead_of_a_pair_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="pairs of query and document"):
        reranker(tmp_path).tokenize(["a text"])


def test_scores_pass_the_activation_and_keep_their_order(tmp_path: Path) -> None:
    backend = reranker(tmp_path)
    scores = backend._compute(backend.tokenize([Pair("a", "b"), Pair("aaaa", "bbbb cc")]))
    assert tuple(scores.shape) == (2, 1)
    assert scores[:, 0].tolist() == pytest.approx([0.2, 1.0])


@pytest.mark.parametrize("segments", [True, False])
def test_the_model_gets_its_other_inputs_and_segments_if_it_has_them(tmp_path: Path, segments: bool) -> None:
    backend = reranker(tmp_path, segments=segments)
    backend._compute(backend.tokenize([Pair("a", "b"), Pair("a a", "b b")]))
    assert backend._model.inputs["task"] == "rerank"
    assert ("token_type_ids" in backend._model.inputs) is segments


@pytest.mark.parametrize(
    ("device", "precision", "dtype"),
    [
        ("cpu", Precision.FULL, torch.float32),
        ("mps", Precision.FULL, torch.float32),
        ("cuda:0", Precision.FULL, torch.float16),
        ("cuda:0", Precision.FLOAT32, torch.float32),
    ],
)
def test_scores_are_never_computed_in_bfloat16(tmp_path: Path, device: str, precision: Precision, dtype: Any) -> None:
    chosen, why = reranker(tmp_path, device, precision=precision)._choose_dtype()
    assert chosen is dtype
    assert why.startswith(f"{str(dtype).removeprefix('torch.')}: ")


def test_a_weight_that_is_not_in_the_files_is_refused(tmp_path: Path) -> None:
    class Transformer:
        @classmethod
        def from_pretrained(cls, *_: object, **options: Any) -> tuple[Any, dict[str, Any]]:
            assert options["local_files_only"]
            return None, {"missing_keys": missing}

    missing = {"score.weight", "score.bias", "a", "b"}
    backend = reranker(tmp_path)
    backend._model.transformers_model = Transformer()
    with pytest.raises(
        ModelLoadError, match=r"its files lack a, b, score\.bias, so its scoring head was never trained"
    ):
        backend._check_weights(torch.float32)
    missing.clear()
    backend._check_weights(torch.float32)


def test_the_samples_are_pairs_and_closing_drops_the_model(tmp_path: Path) -> None:
    backend = reranker(tmp_path)
    assert backend.samples() is SAMPLE_PAIRS
    backend.close()
    assert backend._model is None
