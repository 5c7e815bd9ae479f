"""The encoder without padding gives the hidden states of transformers, on the CPU and on an NVIDIA GPU."""

from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModel

from semel.backends.base import Tokens
from semel.backends.torch import cuda
from semel.backends.torch.cpu import packed_encoder
from semel.backends.torch.cuda import CudaKernels, GraphedEncoder
from semel.backends.torch.packed import PackedEncoder, rebuild

PAD = 1
LENGTHS = [
    1,
    3,
    3,
    15,
    16,
    17,
    17,
    40,
    200,
]  # below, at and above a vector register's size; one long enough for fused attention


def model(model_type: str, **changes: Any) -> Any:
    torch.manual_seed(0)
    sizes = {"vocab_size": 100, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = AutoConfig.for_model(model_type, **sizes, intermediate_size=64, pad_token_id=PAD, **changes)
    return AutoModel.from_config(config).eval()


MODEL_TYPES = ["bert", "roberta", "xlm-roberta", "camembert"]


def batch(*, times: int = 1) -> list[Tokens]:
    random = np.random.default_rng(0)
    texts = [random.integers(2, 100, length).tolist() for length in LENGTHS]
    texts[4][7] = PAD  # a text may contain the padding token; RoBERTa gives it no position
    return [Tokens(text, truncated=False) for text in texts * times]


def check(encoder: PackedEncoder, reference: Any, texts: list[Tokens], device: str = "cpu", **tolerance: float) -> None:
    """The hidden states of each text are those of the reference for this text alone."""
    packed = encoder.pack(texts, lambda tensor: tensor.to(device))
    with torch.inference_mode():
        parts = list(encoder.kernels.texts(encoder(packed), packed))
        rows = [(row[mask.bool()], ids[mask.bool()]) for part in parts for row, ids, mask in zip(*part, strict=True)]
        for text, (row, ids) in zip(texts, rows, strict=True):
            assert ids.tolist() == text.ids
            given = torch.tensor([text.ids], device=device)
            expected = reference(given, attention_mask=torch.ones_like(given)).last_hidden_state[0]
            torch.testing.assert_close(row, expected, **tolerance)


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_hidden_states_equal_those_of_transformers(model_type: str) -> None:
    reference = model(model_type)
    check(packed_encoder(reference), reference, batch(), atol=1e-5, rtol=1e-4)


def attention_of_each_text(query: Any, key: Any, value: Any, starts: Any, *_: Any) -> Any:
    """What `varlen_attn` computes, for the CPU, which lacks it."""
    texts = []
    for start, end in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
        by_head = (part[start:end].transpose(0, 1) for part in (query, key, value))
        texts.append(torch.nn.functional.scaled_dot_product_attention(*by_head).transpose(0, 1))
    return torch.cat(texts)


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_the_kernels_for_gpus_give_the_same_with_attention_on_the_cpu(
    model_type: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda, "varlen_attn", attention_of_each_text)
    reference = model(model_type)
    check(PackedEncoder(reference, CudaKernels()), reference, batch(), atol=1e-5, rtol=1e-4)


@pytest.mark.usefixtures("cuda")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("texts", [batch(), batch()[:1], batch()[:2], batch(times=40)], ids=len)
@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_hidden_states_on_a_gpu_equal_those_of_transformers(
    model_type: str, texts: list[Tokens], dtype: torch.dtype
) -> None:
    reference = model(model_type).to("cuda", dtype)
    encoder = GraphedEncoder(reference)
    for each in (texts, texts[::-1], texts):  # a graph is recorded once and then read again
        check(encoder, reference, each, "cuda", atol=0.05, rtol=0.05)


@pytest.mark.parametrize(
    ("reference", "agree", "why"),
    [
        (model("bert"), 0.9, "agree only to 0.9000"),
        (model("bert"), float("nan"), "agree only to nan"),
        (model("bert", hidden_act="relu"), 1.0, "with GELU"),
        (model("bert", is_decoder=True), 1.0, "not among"),
        (model("electra"), 1.0, "electra is not among"),
    ],
)
def test_a_model_that_the_encoder_does_not_support_keeps_its_layers(reference: Any, agree: float, why: str) -> None:
    encoder, reason = rebuild(reference, packed_encoder, lambda encoder: agree)
    assert encoder is None
    assert why in reason
