"""The MLX backend gives the numbers of the reference library, to rounding: on mlx[cpu], with random weights."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import CrossEncoder, SentenceTransformer
from tokenizers import Tokenizer
from transformers import (
    AutoModel,
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    CamembertConfig,
    CamembertModel,
    Gemma2Config,
    Gemma2Model,
    Gemma3TextConfig,
    Gemma3TextModel,
    LlamaConfig,
    LlamaModel,
    MistralConfig,
    MistralModel,
    Qwen2Config,
    Qwen2Model,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3Model,
    RobertaConfig,
    RobertaModel,
    XLMRobertaConfig,
    XLMRobertaForSequenceClassification,
    XLMRobertaModel,
)

from semel.backends.models.factory import create_backend
from semel.backends.models.head import activation_of
from semel.backends.models.source import ModelSource
from semel.errors import BackendError, ModelLoadError
from semel.settings import BUILT_IN_MODELS
from semel.values.activation import activated
from semel.values.vectors import Vectors
from tests.support.tiny_models import CHAT, PAIRS, SIZES, WORDS, reranker, source, tokenizer

TEXTS = ["the cat sat on the mat", "a dog", "stone", " ".join(["what is a pet"] * 40), "the cat sat on the mat"]
"""The fourth text is truncated at the limit of 32 tokens."""

SMALL = {**SIZES, "hidden_size": 48}  # √48 is not a bfloat16 number
CAUSAL = {**SMALL, "num_key_value_heads": 2, "head_dim": 16}
WINDOWED = {**CAUSAL, "sliding_window": 8, "query_pre_attn_scalar": 16}

ENCODERS = {
    "bert": (BertModel, BertConfig(**SMALL)),
    "roberta": (RobertaModel, RobertaConfig(**SMALL)),
    "xlm-roberta": (XLMRobertaModel, XLMRobertaConfig(**SMALL)),
    "camembert": (CamembertModel, CamembertConfig(**SMALL)),
}
DECODERS = {
    "qwen3": (Qwen3Model, Qwen3Config(**CAUSAL)),
    "qwen2": (Qwen2Model, Qwen2Config(**{**SMALL, "num_key_value_heads": 2})),
    "llama": (LlamaModel, LlamaConfig(**{**SMALL, "num_key_value_heads": 2})),
    "mistral": (MistralModel, MistralConfig(**{**SMALL, "num_key_value_heads": 2, "sliding_window": None})),
    "gemma2": (Gemma2Model, Gemma2Config(**{**WINDOWED, "sliding_window": 64})),
    "gemma3": (Gemma3TextModel, Gemma3TextConfig(**{**WINDOWED, "num_hidden_layers": 6})),
    "embeddinggemma": (
        Gemma3TextModel,
        Gemma3TextConfig(**{**WINDOWED, "num_hidden_layers": 6}, use_bidirectional_attention=True),
    ),
}


def save(folder: Path, kind: type, config: Any) -> None:
    torch.manual_seed(0)
    tokenizer(folder)
    kind(config).save_pretrained(folder)


def on_mlx(model: ModelSource) -> Vectors:
    backend = create_backend(model, "mlx")
    backend.load()
    vectors = backend.embed_texts(TEXTS)
    backend.close()
    return vectors


def cosine(one: Vectors, other: Vectors) -> float:
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


def test_minilm_gives_the_vectors_of_torch() -> None:
    model = source(BUILT_IN_MODELS["minilm"].source)
    texts = ["one", "a somewhat longer text about cats", "naïve 漢字 🙂", "one two three " * 30]
    backend = create_backend(model, "mlx")
    backend.load()
    np.testing.assert_allclose(
        backend.embed_texts(texts), SentenceTransformer(str(model.path), device="cpu").encode(texts), atol=1e-4
    )
    cat, feline, market = backend.embed_texts(
        ["The cat sat on the mat", "A feline rested on the rug", "The stock market crashed today"]
    )
    assert cosine(cat, feline) > cosine(cat, market) + 0.2


@pytest.mark.parametrize("kind", ENCODERS)
def test_encoders_give_the_vectors_of_transformers(kind: str, tmp_path: Path) -> None:
    save(tmp_path, *ENCODERS[kind])
    expected = SentenceTransformer(str(tmp_path), device="cpu").encode(TEXTS)
    assert np.ptp(expected, axis=0).max() > 0.05, "equal vectors would prove nothing"
    np.testing.assert_allclose(on_mlx(source(tmp_path)), expected, atol=1e-4)


@pytest.mark.parametrize("pooling", ["lasttoken", "mean"])
@pytest.mark.parametrize("kind", DECODERS)
def test_decoders_give_the_vectors_of_transformers(kind: str, pooling: str, tmp_path: Path) -> None:
    save(tmp_path, *DECODERS[kind])
    model = source(tmp_path, pooling=pooling)
    reference = SentenceTransformer(str(tmp_path), device="cpu")
    reference[1].pooling_mode = pooling
    expected = reference.encode(TEXTS)
    assert np.ptp(expected, axis=0).max() > 0.05
    np.testing.assert_allclose(on_mlx(model), expected, atol=1e-4, rtol=1e-4)


def quantised(folder: Path, *, bits: int) -> dict[str, np.ndarray]:
    """Quantise a saved Qwen3 as mlx-lm's convert does; returns the dequantised weights."""
    import mlx.core as mx
    from mlx import nn
    from mlx.utils import tree_flatten
    from mlx_lm.utils import load_model, quantize_model, save

    model, config = load_model(folder)
    model, config = quantize_model(model, config, group_size=32, bits=bits)
    plain = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.QuantizedLinear | nn.QuantizedEmbedding):
            weight = mx.dequantize(module.weight, module.scales, module.biases, group_size=32, bits=bits)
            plain[f"{name}.weight"] = np.array(weight.astype(mx.float32))
    assert plain, "nothing was quantised"
    save(folder / "quantised", folder, model, _Copied(folder), config)
    assert any(name.endswith("scales") for name, _ in tree_flatten(model.parameters()))
    return plain


class _Copied:
    """The tokenizer that mlx-lm's `save` receives: it copies the tokenizer files of a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def save_pretrained(self, to: str | Path) -> None:
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(self._folder / name, Path(to) / name)


@pytest.mark.parametrize("bits", [4, 8])
def test_quantised_weights_give_the_vectors_of_the_dequantised_ones(bits: int, tmp_path: Path) -> None:
    sizes = {**CAUSAL, "hidden_size": 64}
    save(tmp_path, Qwen3ForCausalLM, Qwen3Config(**sizes, tie_word_embeddings=True))
    full = on_mlx(source(tmp_path, pooling="lasttoken"))
    plain = quantised(tmp_path, bits=bits)
    weights = load_file(tmp_path / "model.safetensors")
    weights |= {name: torch.from_numpy(values) for name, values in plain.items()}
    dequantised = tmp_path / "dequantised"
    shutil.copytree(tmp_path, dequantised, ignore=shutil.ignore_patterns("quantised", "dequantised"))
    save_file(weights, dequantised / "model.safetensors", {"format": "pt"})
    model = AutoModel.from_pretrained(dequantised).eval()
    reference = SentenceTransformer(str(dequantised), device="cpu")
    reference[0].auto_model = model
    reference[1].pooling_mode = "lasttoken"
    expected = reference.encode(TEXTS)
    quantised_model = source(tmp_path / "quantised", pooling="lasttoken")
    got = on_mlx(quantised_model)
    np.testing.assert_allclose(got, expected, atol=1e-2)
    assert quantised_model.described.spec.precision == f"int{bits}"
    if bits == 4:
        assert np.abs(got - full).max() > 0.05, "the quantised model is another space"


@pytest.mark.parametrize("kind", ["bert", "xlm-roberta", "qwen3"])
def test_rerankers_score_as_the_library_does(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    tokenizer(tmp_path, **({"chat_template": CHAT} if kind == "qwen3" else {}))
    if kind == "qwen3":
        config = Qwen3Config(**{**SIZES, "num_key_value_heads": 2, "head_dim": 8}, tie_word_embeddings=True)
        Qwen3ForCausalLM(config).save_pretrained(tmp_path)
    elif kind == "bert":
        BertForSequenceClassification(BertConfig(**SIZES, num_labels=1)).save_pretrained(tmp_path)
    else:
        made = XLMRobertaForSequenceClassification(XLMRobertaConfig(**SIZES, num_labels=1, type_vocab_size=2))
        made.save_pretrained(tmp_path)
    library = CrossEncoder(str(tmp_path), device="cpu", max_length=32)
    expected = library.predict([tuple(pair) for pair in PAIRS])
    assert np.ptp(expected) > 0.05
    backend = create_backend(reranker(tmp_path), "mlx")
    backend.load()
    tokens = backend.tokenize(PAIRS)
    scores = activated(activation_of(reranker(tmp_path)), backend.forward(tokens)[:, 0])
    np.testing.assert_allclose(scores, expected, atol=1e-3)
    assert [read.truncated for read in tokens] == [False, False, False, False, True]
    with pytest.raises(Exception, match="pairs of query and document"):
        backend.tokenize(["a text"])


def test_missing_weights_are_refused_and_never_initialised_at_random(tmp_path: Path) -> None:
    for name in ("bert", "qwen3"):
        folder = tmp_path / name
        folder.mkdir()
        save(folder, *{**ENCODERS, **DECODERS}[name])
        weights = load_file(folder / "model.safetensors")
        lost = next(key for key in weights if "layer" in key and key.endswith("weight"))
        save_file({k: v for k, v in weights.items() if k != lost}, folder / "model.safetensors", {"format": "pt"})
        with pytest.raises(ModelLoadError, match=r"(?s)m.*Missing"):
            create_backend(source(folder, pooling="mean"), "mlx").load()


def test_the_words_of_the_texts_are_in_the_vocabulary() -> None:
    """Texts of unknown words would make every comparison above easy."""
    assert set(" ".join(TEXTS).split()) <= set(WORDS)


@pytest.mark.parametrize(
    ("kind", "config", "why"),
    [
        (MistralModel, MistralConfig(**{**SMALL, "num_key_value_heads": 2, "sliding_window": 16}), "max_tokens = 16"),
        (
            XLMRobertaModel,
            XLMRobertaConfig(**{**SMALL, "max_position_embeddings": 32}),
            "positions for 31 tokens, but its limit is 32 tokens: add max_tokens = 31",
        ),
        (Qwen2Model, Qwen2Config(**{**SMALL, "num_key_value_heads": 2}, is_causal=False), "attends in both directions"),
    ],
    ids=["window", "positions", "directions"],
)
def test_a_model_that_would_give_other_numbers_is_refused(kind: type, config: Any, why: str, tmp_path: Path) -> None:
    save(tmp_path, kind, config)
    with pytest.raises(ModelLoadError, match=why):
        create_backend(source(tmp_path, pooling="mean"), "mlx").load()


def test_a_device_that_cannot_compute_in_the_precision_of_the_entry_is_refused(tmp_path: Path) -> None:
    save(tmp_path, Qwen3ForCausalLM, Qwen3Config(**{**CAUSAL, "hidden_size": 64}, tie_word_embeddings=True))
    with pytest.raises(
        ModelLoadError, match="mlx cannot quantise, so precision int8 needs weights that are stored quantised"
    ):
        create_backend(source(tmp_path, pooling="lasttoken", precision="int8"), "mlx")
    quantised(tmp_path, bits=4)
    for device in ("cpu", "cuda:0", "vulkan:0"):
        with pytest.raises(ModelLoadError, match=f"holds int4 weights in MLX's format, which {device} cannot read"):
            create_backend(source(tmp_path / "quantised", pooling="lasttoken"), device)


def test_texts_are_lower_cased_as_in_the_library(tmp_path: Path) -> None:
    save(tmp_path, *ENCODERS["bert"])
    folder = tmp_path / "saved"
    SentenceTransformer(str(tmp_path), device="cpu").save_pretrained(str(folder))
    file = folder / "sentence_bert_config.json"
    settings = json.loads(file.read_text())
    file.write_text(json.dumps({**settings, "do_lower_case": True}))
    library = SentenceTransformer(str(folder), device="cpu")
    texts = ["The CAT sat on the MAT", "the cat sat on the mat"]
    backend = create_backend(source(folder), "mlx")
    backend.load()
    np.testing.assert_allclose(backend.embed_texts(texts), library.encode(texts), atol=1e-4)
    assert backend.tokenize(texts)[0] == backend.tokenize(texts)[1]
    file.write_text(json.dumps({**settings, "processing_kwargs": {"text": {"add_special_tokens": False}}}))
    with pytest.raises(ModelLoadError, match="sets processing_kwargs, which only the torch backend follows"):
        create_backend(source(folder), "mlx").load()


def test_a_token_outside_the_vocabulary_fails_only_its_text(tmp_path: Path) -> None:
    save(tmp_path, *ENCODERS["bert"])
    made = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    made.add_tokens(["beyond"])
    made.save(str(tmp_path / "tokenizer.json"))
    backend = create_backend(source(tmp_path), "mlx")
    backend.load()
    with pytest.raises(
        BackendError, match=f"token {len(WORDS)} is not in the model's vocabulary of {len(WORDS)} tokens"
    ):
        backend.embed_texts(["a dog beyond"])
    assert backend.embed_texts(["a dog"]).any()


def test_segments_go_only_to_models_whose_tokenizer_names_them(tmp_path: Path) -> None:
    torch.manual_seed(0)
    tokenizer(tmp_path)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    settings["model_input_names"] = ["input_ids", "attention_mask"]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    BertForSequenceClassification(BertConfig(**SIZES, num_labels=1)).save_pretrained(tmp_path)
    library = CrossEncoder(str(tmp_path), device="cpu", max_length=32, activation_fn=torch.nn.Identity())
    expected = library.predict([tuple(pair) for pair in PAIRS])
    backend = create_backend(reranker(tmp_path), "mlx")
    backend.load()
    np.testing.assert_allclose(backend.forward(backend.tokenize(PAIRS))[:, 0], expected, atol=1e-4)
