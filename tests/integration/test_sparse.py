"""Sparse models give the vectors of sentence-transformers' SparseEncoder; lexical ones those of BGE-M3's layer."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from sentence_transformers import SparseEncoder
from sentence_transformers.sparse_encoder.modules import SparseAutoEncoder, SpladePooling
from transformers import (
    AutoModel,
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    BertModel,
    DistilBertConfig,
    DistilBertForMaskedLM,
    XLMRobertaConfig,
    XLMRobertaModel,
)

from semel.backends.engine import Engine
from semel.backends.models.factory import create_backend
from semel.backends.models.head import LEXICAL_FILE
from semel.errors import ModelLoadError
from semel.values.sparse import SparseVector
from semel.values.variant import Variant
from tests.support.model_files import source
from tests.support.tiny_models import SIZES, TEXTS, tokenizer


@pytest.fixture
def splade(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    tokenizer(tmp_path)
    BertForMaskedLM(BertConfig(**SIZES)).save_pretrained(tmp_path)
    return tmp_path


def computed(folder: Path, texts: Sequence[str] = TEXTS, **entry: object) -> list[SparseVector]:
    """The vectors of all texts, from several batches."""
    backend = create_backend(source(folder, kind="sparse", precision="float32", **entry), "cpu")
    engine, rows = Engine(max_batch_tokens=64), dict[int, SparseVector]()
    try:
        engine.load(backend)
        for part in engine.submit(backend, texts):
            rows |= dict(zip(part.indices, part.vectors, strict=True))
    finally:
        engine.close()
    return [rows[i] for i in range(len(texts))]


def dense(rows: Sequence[SparseVector], size: int) -> npt.NDArray[np.float32]:
    matrix = np.zeros((len(rows), size), np.float32)
    for row, vector in zip(matrix, rows, strict=True):
        row[vector.indices] = vector.values
    return matrix


def of_the_library(folder: Path, texts: Sequence[str] = TEXTS) -> npt.NDArray[np.float32]:
    encoder = SparseEncoder(str(folder), device="cpu")
    vectors: npt.NDArray[np.float32] = encoder.encode(list(texts), convert_to_sparse_tensor=False).numpy()
    return vectors


def check(folder: Path) -> npt.NDArray[np.float32]:
    expected, rows = of_the_library(folder), computed(folder)
    np.testing.assert_allclose(dense(rows, expected.shape[1]), expected, atol=1e-4)
    assert all((np.diff(row.indices.astype(np.int64)) > 0).all() and (row.values > 0).all() for row in rows)
    return expected


def test_a_plain_masked_language_model_is_a_splade_model(splade: Path) -> None:
    expected = check(splade)
    assert len({tuple(row.nonzero()[0]) for row in expected}) > 1, "equal vectors would prove nothing"


def test_another_architecture_whose_head_has_other_parts(tmp_path: Path) -> None:
    torch.manual_seed(0)
    tokenizer(tmp_path)
    sizes = {"dim": 32, "hidden_dim": 64, "n_heads": 4, "n_layers": 2, "vocab_size": SIZES["vocab_size"]}
    DistilBertForMaskedLM(DistilBertConfig(**sizes)).save_pretrained(tmp_path)
    check(tmp_path)


@pytest.mark.parametrize("options", [{"pooling_strategy": "sum"}, {"activation_function": "log1p_relu"}], ids=str)
def test_a_saved_model_keeps_its_pooling(splade: Path, tmp_path: Path, options: dict[str, str]) -> None:
    transformer = SparseEncoder(str(splade), device="cpu")[0]
    SparseEncoder(modules=[transformer, SpladePooling(**options)], device="cpu").save(str(tmp_path / "saved"))
    other = check(tmp_path / "saved")
    assert not np.allclose(other, of_the_library(splade), atol=1e-3), "the same vectors would prove nothing"
    fingerprints = {source(folder, kind="sparse").described.spec.fingerprint for folder in (splade, tmp_path / "saved")}
    assert len(fingerprints) == 2


def test_the_most_entries_that_the_files_allow_are_kept(splade: Path, tmp_path: Path) -> None:
    SparseEncoder(str(splade), device="cpu", max_active_dims=5).save(str(tmp_path / "saved"))
    check(tmp_path / "saved")
    assert all(len(row.indices) <= 5 for row in computed(tmp_path / "saved"))


def test_a_sparse_autoencoder_on_an_embedding_model(splade: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    tokenizer(tmp_path / "dense")
    BertModel(BertConfig(**SIZES)).save_pretrained(tmp_path / "dense")
    transformer, pooling, _ = SparseEncoder(str(tmp_path / "dense"), device="cpu")
    autoencoder = SparseAutoEncoder(input_dim=32, hidden_dim=64, k=8)
    encoder = SparseEncoder(modules=[transformer, pooling, autoencoder], device="cpu")
    encoder.save(str(tmp_path / "saved"))
    check(tmp_path / "saved")


def test_a_text_of_several_prompts_and_variants_is_cut_and_led_as_it_should_be(splade: Path) -> None:
    backend = create_backend(source(splade, kind="sparse", precision="float32"), "cpu")
    backend.load()
    long = " ".join(TEXTS)
    (cut,) = backend.forward(backend.tokenize([long], variant=Variant(max_tokens=8)))
    (whole,) = backend.forward(backend.tokenize([long]))
    assert not np.array_equal(cut.values, whole.values)
    (led,), (joined,) = (
        backend.forward(tokens)
        for tokens in (backend.tokenize(["the cat"], prompt="find "), backend.tokenize(["find the cat"]))
    )
    np.testing.assert_allclose(led.values, joined.values, atol=1e-6)


def test_a_model_without_a_trained_head_is_refused(tmp_path: Path) -> None:
    tokenizer(tmp_path)
    BertModel(BertConfig(**SIZES)).save_pretrained(tmp_path)
    with pytest.raises(ModelLoadError, match="is not a sparse model that semel reads: its architecture is BertModel"):
        computed(tmp_path)


# BGE-M3


@pytest.fixture
def lexical(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    tokenizer(tmp_path)
    XLMRobertaModel(XLMRobertaConfig(**{**SIZES, "max_position_embeddings": 80})).save_pretrained(tmp_path)
    torch.save(torch.nn.Linear(SIZES["hidden_size"], 1).state_dict(), tmp_path / LEXICAL_FILE)
    return tmp_path


def lexical_weights(folder: Path, text: str) -> dict[int, float]:
    """As FlagEmbedding defines them, computed on one text with transformers alone."""
    model, read = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    layer = torch.load(folder / LEXICAL_FILE, weights_only=True)
    encoded = read(text, return_tensors="pt", truncation=True, max_length=64)
    with torch.inference_mode():
        hidden = model(input_ids=encoded["input_ids"], attention_mask=encoded["attention_mask"]).last_hidden_state[0]
        weights = torch.relu(hidden @ layer["weight"].T + layer["bias"])[:, 0].tolist()
    unused = {read.cls_token_id, read.eos_token_id, read.pad_token_id, read.unk_token_id}
    highest: dict[int, float] = {}
    for token, weight in zip(encoded["input_ids"][0].tolist(), weights, strict=True):
        if token not in unused and weight > 0:
            highest[token] = max(weight, highest.get(token, 0.0))
    return highest


def test_lexical_weights_are_those_of_their_definition(lexical: Path) -> None:
    repeated = ["the cat the cat the", *TEXTS]
    for text, row in zip(repeated, computed(lexical, repeated, max_tokens=64), strict=True):
        found = dict(zip(row.indices.tolist(), row.values.tolist(), strict=True))
        assert found == pytest.approx(lexical_weights(lexical, text), abs=1e-4)
        assert found or not lexical_weights(lexical, text)


def test_another_layer_is_another_space(lexical: Path) -> None:
    before = source(lexical, kind="sparse").described.spec.fingerprint
    torch.save(torch.nn.Linear(SIZES["hidden_size"], 1).state_dict(), lexical / LEXICAL_FILE)
    assert source(lexical, kind="sparse").described.spec.fingerprint != before


@pytest.mark.parametrize("device", ["mlx", "vulkan:0"])
def test_another_framework_says_which_devices_run_sparse_models(splade: Path, device: str) -> None:
    with pytest.raises(ModelLoadError, match="does not run models of kind sparse; start a worker with --device cpu"):
        create_backend(source(splade, kind="sparse"), device)


def test_quantised_weights_are_refused(splade: Path) -> None:
    with pytest.raises(ModelLoadError, match="a sparse model is not quantised; leave out precision"):
        create_backend(source(splade, kind="sparse", precision="int8"), "cpu").load()
