"""What the torch reranker does around a cross-encoder, with a stand-in for the library's model."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers

from semel.backends.base import SAMPLE_PAIRS, Tokens
from semel.backends.shared.tokenizing import TextTokenizer
from semel.backends.torch.rerank import TorchReranker
from semel.errors import BadInputError, ModelLoadError
from semel.values.model import Precision
from semel.values.text import Pair
from semel.values.variant import Variant
from tests.support.model_files import source, write_model

LIMIT = 6
SEPARATOR = 0
CAUSAL = "Qwen3ForCausalLM"


class CrossEncoder:
    """Reads a pair as words with a separator, padded on the left; scores by the sum of the ids."""

    num_labels = 1

    def __init__(self) -> None:
        self.prompts: list[str | None] = []
        self.inputs: dict[str, Any] = {}
        self.lock: Any = None
        self.tokenizer = SimpleNamespace(pad=self._pad)

    def preprocess(
        self, pairs: Sequence[Pair], *, prompt: str | None = None, processing_kwargs: dict[str, dict[str, Any]]
    ) -> dict[str, Any]:
        assert self.lock.locked()
        self.prompts.append(prompt)
        options = processing_kwargs["text"]
        cut = options["max_length"] if options.get("truncation", True) else None
        rows = []
        for query, document in pairs:
            ids = [len(word) for word in query.split()] + [SEPARATOR] + [len(word) for word in document.split()]
            rows.append(ids[:cut])
        longest = max(map(len, rows))
        return {
            "input_ids": torch.tensor([[99] * (longest - len(ids)) + ids for ids in rows]),
            "attention_mask": torch.tensor([[0] * (longest - len(ids)) + [1] * len(ids) for ids in rows]),
        }

    def _pad(self, rows: dict[str, list[list[int]]], *, return_tensors: str) -> dict[str, Any]:
        assert return_tensors == "pt"
        longest = max(map(len, rows["input_ids"]))
        return {name: torch.tensor([row + [0] * (longest - len(row)) for row in rows[name]]) for name in rows}

    def __call__(self, features: dict[str, Any]) -> dict[str, Any]:
        self.inputs = features
        return {"scores": features["input_ids"].sum(dim=1)}


def reranker(folder: Path, device: str = "cpu", *, architecture: str = CAUSAL, **entry: Any) -> TorchReranker:
    write_model(folder, architectures=[architecture])
    backend = TorchReranker(source(folder, kind="cross-encoder", **entry), device=device)
    backend._torch = torch
    backend._model = CrossEncoder()
    backend._model.lock = backend._tokenizing
    backend._max_tokens = LIMIT
    backend._other_inputs = {"task": "rerank"}
    fast = Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1, "b": 2}, unk_token="[UNK]"))
    fast.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    loaded = SimpleNamespace(backend_tokenizer=fast, model_input_names=["token_type_ids"], pad_token_id=0)
    backend._tokenizer = TextTokenizer("m", loaded, max_tokens=LIMIT)
    return backend


def classifier(folder: Path) -> TorchReranker:
    return reranker(folder, architecture="BertForSequenceClassification")


# Causal models, which the library reads by its chat template


def test_pairs_become_rows_without_padding(tmp_path: Path) -> None:
    short, long = reranker(tmp_path).tokenize([Pair("a", "bb"), Pair("a bb", "ccc dddd")])
    assert short == Tokens([1, 0, 2], truncated=False)
    assert long == Tokens([1, 2, 0, 3, 4], truncated=False)


@pytest.mark.parametrize(("words", "truncated"), [(3, False), (4, False), (5, True), (50, True)])
def test_only_a_pair_above_the_limit_is_truncated(tmp_path: Path, words: int, truncated: bool) -> None:
    """A pair of exactly the limit, here four words in the document, is as long as one that was cut."""
    (tokens,) = reranker(tmp_path).tokenize([Pair("a", "b " * words)])
    assert (len(tokens.ids), tokens.truncated) == (min(words + 2, LIMIT), truncated)


@pytest.mark.parametrize(("words", "truncated"), [(2, False), (3, True), (50, True)])
def test_a_smaller_limit_can_be_requested(tmp_path: Path, words: int, truncated: bool) -> None:
    (tokens,) = reranker(tmp_path).tokenize([Pair("a", "b " * words)], variant=Variant(max_tokens=4))
    assert (len(tokens.ids), tokens.truncated) == (4, truncated)


def test_documents_can_be_cut_after_their_own_tokens(tmp_path: Path) -> None:
    pairs = [Pair("a a", "b bb b"), Pair("a a", "b bb")]
    cut, whole = reranker(tmp_path).tokenize(pairs, variant=Variant(document_tokens=2))
    assert cut == Tokens([1, 1, 0, 1, 2], truncated=True)
    assert whole == Tokens([1, 1, 0, 1, 2], truncated=False)


def test_the_template_cannot_be_cut_on_the_left(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="model 'm' reads pairs through a chat template"):
        reranker(tmp_path).tokenize([Pair("a", "b")], variant=Variant(truncate_side="left"))


def test_only_the_long_pairs_are_marked(tmp_path: Path) -> None:
    tokens = reranker(tmp_path).tokenize([Pair("a", "b " * 9), Pair("a", "b"), Pair("a", "b " * 4)])
    assert [each.truncated for each in tokens] == [True, False, False]


def test_a_prompt_is_passed_on_and_an_empty_one_is_none(tmp_path: Path) -> None:
    backend = reranker(tmp_path)
    backend.tokenize([Pair("a", "b")])
    backend.tokenize([Pair("a", "b")], prompt="judge")
    assert backend._model.prompts == [None, "judge"]


# Classifiers, which semel's own tokenizer reads


def test_a_classifier_reads_pairs_with_the_tokenizer_of_every_backend(tmp_path: Path) -> None:
    backend = classifier(tmp_path)
    assert backend.tokenize([Pair("a", "b b")]) == [Tokens([1, 2, 2], truncated=False, segments=[0, 1, 1])]
    (cut,) = backend.tokenize([Pair("a", "b " * 9)], variant=Variant(max_tokens=4))
    assert cut == Tokens([1, 2, 2, 2], truncated=True, segments=[0, 1, 1, 1])
    (prompted,) = backend.tokenize([Pair("a", "b")], prompt="b ")
    assert prompted.ids == [2, 1, 2]
    assert backend._model.prompts == [], "the library read nothing"


# Both


@pytest.mark.parametrize("architecture", [CAUSAL, "BertForSequenceClassification"])
def test_a_text_instead_of_a_pair_is_refused(tmp_path: Path, architecture: str) -> None:
    with pytest.raises(BadInputError, match="pairs of query and document"):
        reranker(tmp_path, architecture=architecture).tokenize(["a text"])


def test_logits_come_as_they_are_and_keep_their_order(tmp_path: Path) -> None:
    backend = reranker(tmp_path)
    logits = backend._compute(backend.tokenize([Pair("a", "b"), Pair("aaaa", "bbbb cc")]))
    assert tuple(logits.shape) == (2, 1)
    assert logits[:, 0].tolist() == [2.0, 10.0]


@pytest.mark.parametrize(("architecture", "segments"), [(CAUSAL, False), ("BertForSequenceClassification", True)])
def test_the_model_gets_its_other_inputs_and_segments_if_it_has_them(
    tmp_path: Path, architecture: str, segments: bool
) -> None:
    backend = reranker(tmp_path, architecture=architecture)
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
