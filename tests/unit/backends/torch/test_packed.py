"""How texts are packed, and the models that the encoder without padding refuses.

tests/integration/test_packed_encoder.py compares its hidden states with transformers'.
"""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from semel.backends.torch.cpu import packed_encoder
from semel.backends.torch.packed import PackedBatch, PackedEncoder, _positions, rebuild


@pytest.mark.parametrize(
    ("lengths", "runs"),
    [((), []), ((3,), [(1, 3)]), ((1, 3, 3, 3, 4), [(1, 1), (3, 3), (1, 4)]), ((2, 3, 2), [(1, 2), (1, 3), (1, 2)])],
)
def test_neighbours_of_equal_length_form_a_run(lengths: tuple[int, ...], runs: list[tuple[int, int]]) -> None:
    nothing = torch.empty(0)
    assert PackedBatch(nothing, nothing, nothing, lengths).runs == runs


def test_positions_start_anew_with_each_text() -> None:
    ids, starts = np.array([5, 1, 5, 5, 5]), np.array([0, 2, 5])
    assert _positions(ids, starts, None).tolist() == [0, 1, 0, 1, 2]


def test_a_padding_token_within_a_text_has_no_position_of_its_own_in_roberta() -> None:
    ids, starts = np.array([5, 5, 7, 1, 7]), np.array([0, 2, 5])
    assert _positions(ids, starts, 1).tolist() == [2, 3, 2, 1, 3]


def no_encoder(_model: Any) -> PackedEncoder:
    pytest.fail("an encoder was made")


def model(**config: Any) -> Any:
    plain = {"model_type": "bert", "is_decoder": False, "hidden_act": "gelu"}
    return SimpleNamespace(config=SimpleNamespace(**{**plain, **config}))


@pytest.mark.parametrize(
    "config", [{"model_type": "electra"}, {"is_decoder": True}, {"hidden_act": "relu"}, {"hidden_act": "gelu_new"}]
)
def test_layers_of_another_kind_are_kept(config: dict[str, Any]) -> None:
    encoder, why = rebuild(model(**config), no_encoder, lambda _: pytest.fail("there is nothing to compare"))
    assert encoder is None
    assert "is not among bert, camembert, roberta, xlm-roberta with GELU" in why


def test_a_model_without_the_expected_parts_is_kept() -> None:
    encoder, why = rebuild(model(), packed_encoder, lambda _: 1.0)
    assert encoder is None
    assert why.startswith("plain layers: packed ones do not run here (")


@pytest.mark.parametrize(("cosine", "kept"), [(0.9991, False), (0.9989, True), (float("nan"), True)])
def test_the_lowest_cosine_decides_which_layers_run(cosine: float, kept: bool) -> None:
    encoder, why = rebuild(model(), lambda _: object.__new__(PackedEncoder), lambda _: cosine)
    assert (encoder is None) is kept
    assert ("agree only to" in why) is kept
