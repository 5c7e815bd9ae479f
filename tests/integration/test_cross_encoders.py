"""Cross-encoders score as sentence-transformers does, and none with a random head is loaded."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import CrossEncoder
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from semel.backends.digests import Digests
from semel.backends.engine import Engine
from semel.backends.registry import ModelSource, find_model
from semel.errors import BadInputError, ModelLoadError
from semel.values import ModelEntry, Pair

SENTENCES = "the cat sat on mat what is a pet stone dog yes no"
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *SENTENCES.split()]
SIZES: dict[str, Any] = {
    "vocab_size": len(WORDS),
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "initializer_range": 0.4,  # so that scores differ
}
CHAT = (
    "{% for m in messages %}{% if m['role'] == 'query' %}what {{ m['content'] }} "
    "{% elif m['role'] == 'document' %}the {{ m['content'] }} {% else %}on {{ m['content'] }} {% endif %}{% endfor %}is"
)
PAIRS = [
    Pair("what is a pet", "the cat"),
    Pair("what is a pet", "a stone on the mat"),
    Pair("the dog", "the cat sat on the mat the cat sat on the mat"),
    Pair("dog", "dog"),
    Pair("what", " ".join(["cat stone"] * 40)),
]


def tokenizer(folder: Path, **options: Any) -> None:
    fast = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    fast.pre_tokenizer = pre_tokenizers.Whitespace()
    if "chat_template" not in options:
        fast.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    names = {"unk_token": "[UNK]", "pad_token": "[PAD]", "sep_token": "[SEP]", "cls_token": "[CLS]"}
    inputs = ["input_ids", "attention_mask"] + ([] if "chat_template" in options else ["token_type_ids"])
    made = PreTrainedTokenizerFast(
        tokenizer_object=fast, **names, model_max_length=32, model_input_names=inputs, **options
    )
    made.save_pretrained(folder)


@pytest.fixture
def bert(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    tokenizer(tmp_path)
    BertForSequenceClassification(BertConfig(**SIZES, num_labels=1)).save_pretrained(tmp_path)
    return tmp_path


@pytest.fixture
def qwen(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    tokenizer(tmp_path, chat_template=CHAT)
    config = Qwen3Config(**SIZES, num_key_value_heads=2, head_dim=8, tie_word_embeddings=True)
    Qwen3ForCausalLM(config).save_pretrained(tmp_path)
    return tmp_path


def reranker(folder: Path, **entry: Any) -> ModelSource:
    made = ModelEntry(str(folder), kind="cross-encoder", **entry)
    return find_model("m", {"m": made}, models_dir=None, digests=Digests(None))


@pytest.mark.parametrize("kind", ["bert", "qwen"])
def test_scores_are_those_of_the_library(kind: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(kind)
    expected = CrossEncoder(str(folder), device="cpu").predict([tuple(pair) for pair in PAIRS])
    assert np.ptp(expected) > 0.05, "a model whose scores are all alike would prove nothing"
    backend = reranker(folder).create_backend("cpu")
    engine = Engine(max_batch_tokens=64)  # several batches, sorted by length
    try:
        engine.load(backend)
        scores = np.full(len(PAIRS), np.nan)
        truncated = [False] * len(PAIRS)
        for part in engine.submit(backend, PAIRS):
            scores[part.indices] = part.vectors[:, 0]
            for i, cut in zip(part.indices, part.truncated, strict=True):
                truncated[i] = cut
    finally:
        engine.close()
    np.testing.assert_allclose(scores, expected, atol=1e-3)
    assert np.argsort(-scores).tolist() == np.argsort(-expected).tolist()
    assert truncated == [False, False, False, False, True]


def test_a_text_is_no_pair(bert: Path) -> None:
    backend = reranker(bert).create_backend("cpu")
    backend.load()
    with pytest.raises(BadInputError, match="pairs of query and document"):
        backend.tokenize(["a text"])


def test_a_model_without_a_head_is_refused_by_its_files(tmp_path: Path) -> None:
    tokenizer(tmp_path)
    BertModel(BertConfig(**SIZES)).save_pretrained(tmp_path)
    with pytest.raises(ModelLoadError, match=r"BertModel, which has no head .* no random one"):
        _ = reranker(tmp_path).described


def test_a_head_that_is_not_in_the_files_is_refused(bert: Path) -> None:
    weights = load_file(bert / "model.safetensors")
    save_file({k: v for k, v in weights.items() if "classifier" not in k}, bert / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelLoadError, match=r"lack classifier\.bias, classifier\.weight, so its head was never"):
        reranker(bert).create_backend("cpu").load()


def test_a_classifier_of_several_classes_is_refused(bert: Path) -> None:
    BertForSequenceClassification(BertConfig(**SIZES, num_labels=3)).save_pretrained(bert)
    with pytest.raises(ModelLoadError, match="3 classes"):
        reranker(bert).create_backend("cpu").load()


def test_what_changes_a_score_changes_the_fingerprint(bert: Path) -> None:
    def spec() -> Any:
        return reranker(bert).described.spec

    before = spec()
    config = json.loads((bert / "config.json").read_text())
    activation = {"activation_fn": "torch.nn.modules.linear.Identity"}
    (bert / "config.json").write_text(json.dumps({**config, "sentence_transformers": activation}))
    assert spec() != before
    (bert / "config.json").write_text(json.dumps(config))
    assert spec() == before
    (bert / "chat_template.jinja").write_text("another one")
    assert spec() != before
