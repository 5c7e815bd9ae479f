"""Names of weights, positions, and the variants that the layers refuse.

tests/integration/test_mlx.py compares the layers with transformers.
"""

from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from semel.backends.mlx import bert
from semel.backends.mlx.bert import Embeddings, load
from semel.errors import ModelLoadError

CONFIG: dict[str, Any] = {
    "model_type": "bert",
    "vocab_size": 10,
    "hidden_size": 4,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 8,
    "max_position_embeddings": 16,
}


def renamed(*names: str, with_head: bool = False) -> list[str]:
    return list(bert._renamed(dict.fromkeys(names), with_head=with_head))  # type: ignore[arg-type]


@pytest.mark.parametrize("prefix", ["", "bert.", "roberta.", "model."])
def test_the_prefix_of_a_checkpoint_is_removed(prefix: str) -> None:
    assert renamed(f"{prefix}embeddings.word_embeddings.weight") == ["embeddings.word_embeddings.weight"]


def test_old_names_of_a_norm_are_translated_and_no_others() -> None:
    assert renamed("bert.embeddings.LayerNorm.gamma", "bert.embeddings.LayerNorm.beta", "encoder.gamma") == [
        "embeddings.LayerNorm.weight",
        "embeddings.LayerNorm.bias",
        "encoder.gamma",
    ]


def test_weights_that_an_embedding_does_not_use_are_left_out() -> None:
    unused = ["pooler.dense.weight", "cls.predictions.bias", "lm_head.bias", "classifier.weight"]
    assert renamed(*unused, "bert.embeddings.position_ids") == []


def test_a_classifier_keeps_its_head() -> None:
    names = ["bert.pooler.dense.weight", "classifier.weight", "cls.predictions.bias", "bert.encoder.x.weight"]
    expected = ["pooler.dense.weight", "classifier.weight", "model.encoder.x.weight"]
    assert renamed(*names, with_head=True) == expected


def positions(model_type: str, ids: list[int], **config: Any) -> list[float]:
    """The positions that a model gives to tokens."""
    embeddings = Embeddings({**CONFIG, "model_type": model_type, **config})
    embeddings.position_embeddings.weight = mx.arange(16)[:, None] * mx.ones((1, 4))
    for table in (embeddings.word_embeddings, embeddings.token_type_embeddings):
        table.weight = mx.zeros_like(table.weight)
    embeddings.LayerNorm = lambda values: values
    result = embeddings(mx.array([ids]), mx.zeros((1, len(ids)), mx.int32))
    values: list[float] = result[0, :, 0].tolist()
    return values


def test_bert_counts_positions_from_zero() -> None:
    assert positions("bert", [5, 6, 0, 7]) == [0, 1, 2, 3]


@pytest.mark.parametrize(("pad_token_id", "expected"), [(1, [2, 3, 1, 4, 1]), (6, [7, 6, 8, 9, 10])])
def test_roberta_counts_from_the_padding_id_and_skips_padding(pad_token_id: int, expected: list[int]) -> None:
    assert positions("roberta", [5, 6, 1, 7, 1], pad_token_id=pad_token_id) == expected


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"hidden_act": "silu"}, "this encoder has absolute positions and silu; torch runs it: use --device cpu"),
        ({"position_embedding_type": "relative_key"}, "this encoder has relative_key positions and gelu"),
        ({"is_decoder": True}, "this decoder has absolute positions and gelu"),
    ],
)
def test_a_variant_that_the_layers_lack_is_refused(tmp_path: Path, changes: dict[str, Any], why: str) -> None:
    with pytest.raises(ModelLoadError, match=f"model 'm': the MLX backend runs encoders .*{why}"):
        load("m", tmp_path, {**CONFIG, **changes})


@pytest.mark.parametrize("with_head", [True, False])
def test_weights_that_are_missing_are_refused(tmp_path: Path, with_head: bool) -> None:
    mx.save_safetensors(str(tmp_path / "model.safetensors"), {"embeddings.LayerNorm.weight": mx.ones(4)})
    with pytest.raises(ModelLoadError, match=r"(?s)do not match its config\.json: .*Missing"):
        load("m", tmp_path, CONFIG, with_head=with_head)
