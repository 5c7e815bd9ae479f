"""The Vulkan backend gives the numbers of the reference library, to rounding: on a GPU, or on lavapipe."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import CrossEncoder, SentenceTransformer
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    ModernBertConfig,
    ModernBertModel,
    MPNetConfig,
    MPNetModel,
    Qwen3Config,
    Qwen3Model,
    RobertaConfig,
    RobertaModel,
    XLMRobertaConfig,
    XLMRobertaForSequenceClassification,
    XLMRobertaModel,
)

from semel.backends.devices import verify as verify_module
from semel.backends.devices.verify import verify
from semel.backends.models.factory import create_backend
from semel.backends.models.source import ModelSource
from semel.backends.vulkan import backend as vulkan_backend
from semel.backends.vulkan import session as vulkan_session
from semel.backends.vulkan.backend import VulkanBackend
from semel.errors import BackendError, ModelLoadError
from semel.settings import BUILT_IN_MODELS
from tests.support.tiny_models import PAIRS, SIZES, WORDS, reranker, source, tokenizer

pytestmark = pytest.mark.usefixtures("vulkan")

LONG = {**SIZES, "max_position_embeddings": 160}
KNOWN = WORDS[4:]
TEXTS = ["the cat sat on the mat", "a dog", " ".join(KNOWN * 8), "stone " * 70, "what is a pet"]
"""Lengths around 32 and 64 tokens in one batch, where fused attention and boolean masks give wrong vectors."""

MODELS = {
    "bert": (BertModel, BertConfig(**LONG)),
    "roberta": (RobertaModel, RobertaConfig(**LONG)),
    "xlm-roberta": (XLMRobertaModel, XLMRobertaConfig(**LONG)),
    "mpnet": (MPNetModel, MPNetConfig(**LONG)),
    "distilbert": (
        DistilBertModel,
        DistilBertConfig(vocab_size=len(WORDS), dim=32, n_layers=2, n_heads=4, hidden_dim=64, initializer_range=0.4),
    ),
    "modernbert": (ModernBertModel, ModernBertConfig(**LONG, local_attention=16, global_attn_every_n_layers=2)),
}


def save(folder: Path, kind: type, config: Any) -> None:
    torch.manual_seed(0)
    tokenizer(folder, max_tokens=128)
    kind(config).save_pretrained(folder)


def on_vulkan(model: ModelSource, converted: Path) -> VulkanBackend:
    backend = create_backend(model, "vulkan:0", converted=converted)
    assert isinstance(backend, VulkanBackend)
    backend.load()
    return backend


def test_minilm_gives_the_vectors_of_torch(tmp_path: Path) -> None:
    model = source(BUILT_IN_MODELS["minilm"].source)
    texts = ["one", "a somewhat longer text about cats", "naïve 漢字 🙂", "one two three " * 25]
    backend = on_vulkan(model, tmp_path)
    expected = SentenceTransformer(str(model.path), device="cpu").encode(texts)
    np.testing.assert_allclose(backend.embed_texts(texts), expected, atol=1e-5)


@pytest.mark.parametrize("kind", MODELS)
def test_encoders_give_the_vectors_of_transformers(kind: str, tmp_path: Path) -> None:
    save(tmp_path, *MODELS[kind])
    expected = SentenceTransformer(str(tmp_path), device="cpu").encode(TEXTS)
    assert np.ptp(expected, axis=0).max() > 0.05, "equal vectors would prove nothing"
    backend = on_vulkan(source(tmp_path), tmp_path / "converted")
    np.testing.assert_allclose(backend.embed_texts(TEXTS), expected, atol=1e-4)
    assert max(len(read.ids) for read in backend.tokenize(TEXTS)) > 64


@pytest.mark.parametrize("kind", ["bert", "xlm-roberta"])
def test_cross_encoders_score_as_the_library_does(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    tokenizer(tmp_path)
    if kind == "bert":
        BertForSequenceClassification(BertConfig(**SIZES, num_labels=1)).save_pretrained(tmp_path)
    else:
        XLMRobertaForSequenceClassification(XLMRobertaConfig(**SIZES, num_labels=1)).save_pretrained(tmp_path)
    library = CrossEncoder(str(tmp_path), device="cpu", max_length=32)
    expected = library.predict([tuple(pair) for pair in PAIRS], activation_fn=torch.nn.Identity())
    backend = on_vulkan(reranker(tmp_path), tmp_path / "converted")
    scores = backend.forward(backend.tokenize(PAIRS))[:, 0]
    np.testing.assert_allclose(scores, expected, atol=1e-4)


def test_no_tensor_exceeds_the_limit_of_the_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, *MODELS["bert"])
    backend = on_vulkan(source(tmp_path), tmp_path / "converted")
    texts = ["stone " * 60] * 7
    whole = backend.embed_texts(texts)
    sizes = []
    run = backend._run

    def counted(ids: Any, mask: Any, segments: Any) -> Any:
        sizes.append(4 * 4 * ids.size * ids.shape[1])  # 4 heads, 4 bytes
        return run(ids, mask, segments)

    monkeypatch.setattr(backend, "_run", counted)
    limit = 3 * 4 * 4 * 64 * 64 + 1  # three such texts
    monkeypatch.setattr(vulkan_backend, "LIMIT_BYTES", limit)
    parts = backend.embed_texts(texts)
    assert len(sizes) == 3
    assert max(sizes) <= limit
    np.testing.assert_allclose(parts, whole, atol=1e-6)
    with pytest.raises(ModelLoadError, match="reads texts of 128 tokens, but Vulkan can run only 110: add max_tokens"):
        on_vulkan(source(tmp_path), tmp_path / "converted")
    on_vulkan(source(tmp_path, max_tokens=110), tmp_path / "converted")


def test_an_export_is_made_once_for_each_fingerprint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, *MODELS["bert"])
    backend = on_vulkan(source(tmp_path), tmp_path / "converted")
    (made,) = (tmp_path / "converted").iterdir()
    monkeypatch.setattr("torch.onnx.export", lambda *_, **__: pytest.fail("exported again"))
    again = on_vulkan(source(tmp_path), tmp_path / "converted")
    assert (again.embed_texts(TEXTS) == backend.embed_texts(TEXTS)).all()
    (made / "about.json").unlink()  # a write that was cut off: the export counts as missing
    with pytest.raises(pytest.fail.Exception, match="exported again"):
        on_vulkan(source(tmp_path), tmp_path / "converted")


def test_a_device_whose_numbers_are_off_is_refused(tmp_path: Path) -> None:
    save(tmp_path, *MODELS["bert"])
    on_vulkan(source(tmp_path), tmp_path / "converted").close()
    (made,) = (tmp_path / "converted").iterdir()
    check = dict(np.load(made / "check.npz"))
    check["answer"][0, 80, 3] += 0.01  # one number, behind the 64th token
    np.savez(made / "check.npz", **check)
    with pytest.raises(BackendError, match=r"vulkan:0 failed its self-test with model 'm': .* off by 0\.01"):
        on_vulkan(source(tmp_path), tmp_path / "converted")


def test_a_session_that_would_fall_back_to_the_cpu_is_refused() -> None:
    with pytest.raises(BackendError, match="cannot open a session on Vulkan"):
        vulkan_session.open_session(b"no graph")


def test_the_self_test_passes_and_fails_on_wrong_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    verify("vulkan:0")
    real = vulkan_session.softmax_of_product
    monkeypatch.setattr(verify_module, "softmax_of_product", lambda left, right: real(left, right) + 0.01)
    with pytest.raises(BackendError, match=r"vulkan:0 failed its self-test: its numbers are off by 0\.01"):
        verify("vulkan:0")


def test_software_is_refused_unless_asked_for() -> None:
    (device, *_) = vulkan_session.find_adapters(software=False)
    assert device.usable != device.software
    if device.software:
        assert "renders on the CPU (SEMEL_SOFTWARE_DEVICES=true allows it" in device.why


def test_the_error_for_another_model_names_the_backend_that_runs_it(tmp_path: Path) -> None:
    save(tmp_path, Qwen3Model, Qwen3Config(**{**SIZES, "num_key_value_heads": 2, "head_dim": 8}))
    with pytest.raises(ModelLoadError, match=r"is a qwen3, which the Vulkan backend does not run .* --device cpu"):
        on_vulkan(source(tmp_path, pooling="lasttoken"), tmp_path / "converted")
    save(tmp_path, *MODELS["bert"])
    with pytest.raises(
        ModelLoadError, match=r"vulkan:0 cannot quantise, so precision int8 needs .* --device cuda or cpu"
    ):
        on_vulkan(source(tmp_path, precision="int8"), tmp_path / "converted")
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["model_type"] == "bert"


def test_a_head_that_is_not_in_the_files_is_refused(tmp_path: Path) -> None:
    tokenizer(tmp_path)
    BertForSequenceClassification(BertConfig(**SIZES, num_labels=1)).save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    left = {key: values for key, values in weights.items() if "classifier" not in key}
    save_file(left, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(
        ModelLoadError,
        match=r"its files lack classifier\.bias, classifier\.weight, and semel does not initialise weights at random",
    ):
        on_vulkan(reranker(tmp_path), tmp_path / "converted")
    assert not list((tmp_path / "converted").glob("*"))
