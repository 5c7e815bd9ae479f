"""Cross-encoders give the scores of sentence-transformers, and none is loaded with a random head."""

import gc
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import CrossEncoder
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    Qwen3Config,
    Qwen3ForCausalLM,
    XLMRobertaConfig,
    XLMRobertaForSequenceClassification,
)

from semel.backends.engine import Engine
from semel.backends.models.factory import create_backend
from semel.backends.models.head import activation_of
from semel.backends.torch import packed
from semel.errors import BadInputError, ModelLoadError
from semel.values.activation import activated
from semel.values.variant import Variant
from tests.support.tiny_models import CHAT, PAIRS, SIZES, reranker, tokenizer


@pytest.fixture
def bert(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    tokenizer(tmp_path)
    BertForSequenceClassification(BertConfig(**SIZES, num_labels=1)).save_pretrained(tmp_path)
    return tmp_path


@pytest.fixture
def roberta(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    tokenizer(tmp_path)
    config = XLMRobertaConfig(**SIZES, num_labels=1)
    XLMRobertaForSequenceClassification(config).save_pretrained(tmp_path)
    return tmp_path


@pytest.fixture
def qwen(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    tokenizer(tmp_path, chat_template=CHAT)
    config = Qwen3Config(**SIZES, num_key_value_heads=2, head_dim=8, tie_word_embeddings=True)
    Qwen3ForCausalLM(config).save_pretrained(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("kind", "layers"), [("bert", "packed layers"), ("roberta", "packed layers"), ("qwen", "plain layers")]
)
def test_scores_equal_those_of_the_library(kind: str, layers: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(kind)
    expected = CrossEncoder(str(folder), device="cpu").predict([tuple(pair) for pair in PAIRS])
    assert np.ptp(expected) > 0.05, "equal scores would prove nothing"
    model = reranker(folder)
    backend = create_backend(model, "cpu")
    engine = Engine(max_batch_tokens=64)  # several batches, sorted by length
    try:
        engine.load(backend)
        assert layers in backend.get_model_info().why
        logits = np.full(len(PAIRS), np.nan, np.float32)
        truncated = [False] * len(PAIRS)
        for part in engine.submit(backend, PAIRS):
            logits[part.indices] = part.vectors[:, 0]
            for i, cut in zip(part.indices, part.truncated, strict=True):
                truncated[i] = cut
    finally:
        engine.close()
    scores = activated(activation_of(model), logits)
    np.testing.assert_allclose(scores, expected, atol=1e-3)
    assert np.argsort(-scores).tolist() == np.argsort(-expected).tolist()
    assert truncated == [False, False, False, False, True]


@pytest.mark.parametrize("kind", ["bert", "qwen"])
def test_pairs_are_tokenised_as_the_library_does_and_without_padding(kind: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(kind)
    library = CrossEncoder(str(folder), device="cpu")
    backend = create_backend(reranker(folder), "cpu")
    backend.load()
    expected = [library.preprocess([tuple(pair)])["input_ids"][0].tolist() for pair in PAIRS]
    assert len({len(ids) for ids in expected}) > 2, "pairs of one length would need no padding"
    assert [tokens.ids for tokens in backend.tokenize(PAIRS)] == expected


def test_a_smaller_limit_gives_the_logits_that_the_library_gives_under_it(bert: Path) -> None:
    library = CrossEncoder(str(bert), device="cpu", max_length=9, activation_fn=torch.nn.Identity())
    backend = create_backend(reranker(bert), "cpu")
    backend.load()
    tokens = backend.tokenize(PAIRS, variant=Variant(max_tokens=9))
    np.testing.assert_allclose(backend.forward(tokens)[:, 0], library.predict([tuple(p) for p in PAIRS]), atol=1e-3)
    assert [each.truncated for each in tokens] == [False, True, True, False, True]


@pytest.mark.parametrize("limit", [16, 12])
def test_the_template_of_a_causal_model_is_cut_as_the_library_cuts_it(qwen: Path, limit: int) -> None:
    library = CrossEncoder(str(qwen), device="cpu", max_length=limit, activation_fn=torch.nn.Identity())
    backend = create_backend(reranker(qwen), "cpu")
    backend.load()
    tokens = backend.tokenize(PAIRS, variant=Variant(max_tokens=limit))
    np.testing.assert_allclose(backend.forward(tokens)[:, 0], library.predict([tuple(p) for p in PAIRS]), atol=1e-3)
    assert max(len(each.ids) for each in tokens) == limit


def test_a_text_instead_of_a_pair_is_refused(bert: Path) -> None:
    backend = create_backend(reranker(bert), "cpu")
    backend.load()
    with pytest.raises(BadInputError, match="pairs of query and document"):
        backend.tokenize(["a text"])


def test_a_model_without_a_head_is_refused_by_its_files(tmp_path: Path) -> None:
    tokenizer(tmp_path)
    BertModel(BertConfig(**SIZES)).save_pretrained(tmp_path)
    with pytest.raises(
        ModelLoadError,
        match=r"architecture BertModel has no trained scoring head, and semel does not initialise one at random",
    ):
        _ = reranker(tmp_path).described


def test_a_head_that_is_not_in_the_files_is_refused(bert: Path) -> None:
    weights = load_file(bert / "model.safetensors")
    save_file({k: v for k, v in weights.items() if "classifier" not in k}, bert / "model.safetensors", {"format": "pt"})
    with pytest.raises(
        ModelLoadError, match=r"lack classifier\.bias, classifier\.weight, so its scoring head was never trained"
    ):
        create_backend(reranker(bert), "cpu").load()


def test_a_classifier_of_several_classes_is_refused(bert: Path) -> None:
    BertForSequenceClassification(BertConfig(**SIZES, num_labels=3)).save_pretrained(bert)
    with pytest.raises(ModelLoadError, match="3 classes"):
        create_backend(reranker(bert), "cpu").load()


def test_each_file_that_changes_a_score_changes_the_fingerprint(bert: Path) -> None:
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


@pytest.mark.parametrize("device", ["cpu", "mlx"])
def test_the_activation_that_the_library_saved_is_used_and_is_in_the_fingerprint(bert: Path, device: str) -> None:
    library = CrossEncoder(str(bert), device="cpu", activation_fn=torch.nn.Identity())
    saved = bert / "saved"
    library.save_pretrained(str(saved))
    expected = library.predict([tuple(pair) for pair in PAIRS])
    assert not ((expected > 0) & (expected < 1)).all(), "a sigmoid would give the same scores"
    model = reranker(saved)
    assert activation_of(model) == "Identity"
    backend = create_backend(model, device)
    backend.load()
    scores = activated(activation_of(model), backend.forward(backend.tokenize(PAIRS))[:, 0])
    np.testing.assert_allclose(scores, expected, atol=1e-3)
    before = reranker(saved).described.spec
    file = saved / "config_sentence_transformers.json"
    changed = {**json.loads(file.read_text()), "activation_fn": "torch.nn.modules.activation.Sigmoid"}
    file.write_text(json.dumps(changed))
    assert reranker(saved).described.spec != before


def test_packed_scores_that_differ_are_not_used(bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    head = packed.first_token_head
    monkeypatch.setattr(packed, "first_token_head", lambda model: lambda first: head(model)(first) + 0.1)
    model = reranker(bert)
    backend = create_backend(model, "cpu")
    backend.load()
    assert "plain layers: packed ones agree only to 0.9" in backend.get_model_info().why
    expected = CrossEncoder(str(bert), device="cpu").predict([tuple(pair) for pair in PAIRS])
    scores = activated(activation_of(model), backend.embed_texts(PAIRS)[:, 0])
    np.testing.assert_allclose(scores, expected, atol=1e-5)


def test_a_model_that_was_unloaded_keeps_no_weights(bert: Path) -> None:
    backend = create_backend(reranker(bert), "cpu")
    backend.load()
    backend.close()
    gc.collect()
    assert packed.PackedEncoder not in {type(each) for each in gc.get_objects()}
