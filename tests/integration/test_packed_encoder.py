"""The encoder for CPUs gives the hidden states of transformers."""

from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModel

from semel.backends.base import Tokens
from semel.backends.torch.cpu import PackedEncoder, rebuild, runs_of, split

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


@pytest.mark.parametrize("model_type", ["bert", "roberta", "xlm-roberta", "camembert"])
def test_hidden_states_equal_those_of_transformers(model_type: str) -> None:
    reference, random = model(model_type), np.random.default_rng(0)
    texts = [random.integers(2, 100, length) for length in LENGTHS]
    texts[4][7] = PAD  # a text may contain the padding token; RoBERTa gives it no position
    batch = [Tokens(text.tolist(), truncated=False) for text in texts]
    runs = runs_of(batch)
    assert runs == [(1, 1), (2, 3), (1, 15), (1, 16), (2, 17), (1, 40), (1, 200)]
    with torch.inference_mode():
        hidden = PackedEncoder(reference)(torch.from_numpy(np.concatenate(texts)), runs)
        rows = [row for part in split(hidden, runs) for row in part]
        for text, row in zip(texts, rows, strict=True):
            expected = reference(torch.from_numpy(text)[None], attention_mask=torch.ones(1, len(text)))
            torch.testing.assert_close(row, expected.last_hidden_state[0], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("reference", "agree", "why"),
    [
        (model("bert"), 0.9, "agree only to cosine 0.9000"),
        (model("bert"), float("nan"), "agree only to cosine nan"),
        (model("bert", hidden_act="relu"), 1.0, "with GELU"),
        (model("bert", is_decoder=True), 1.0, "not among"),
        (model("electra"), 1.0, "electra is not among"),
    ],
)
def test_a_model_that_the_encoder_does_not_support_keeps_its_layers(reference: Any, agree: float, why: str) -> None:
    encoder, reason = rebuild(reference, lambda encoder: agree)
    assert encoder is None
    assert why in reason
