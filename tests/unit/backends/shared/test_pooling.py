"""Pooling and projection by small numbers; tests/integration/test_pooling.py compares them with the library."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from semel.backends.shared.pooling import Dense, Head, pooling_modes, prompt_left_out, read_head
from semel.errors import ModelLoadError

HIDDEN = np.array([[[1, 4], [3, 0], [5, 2]], [[6, -8], [99, 99], [99, 99]]], np.float32)
"""Two texts of width 2, with three tokens and with one; 99 is padding."""

LENGTHS = [3, 1]


@pytest.mark.parametrize(
    ("mode", "first"),
    [
        ("cls", [1, 4]),
        ("lasttoken", [5, 2]),
        ("max", [5, 4]),
        ("mean", [3, 2]),
        ("mean_sqrt_len_tokens", [9 / 3**0.5, 6 / 3**0.5]),
        ("weightedmean", [(1 * 1 + 2 * 3 + 3 * 5) / 6, (1 * 4 + 2 * 0 + 3 * 2) / 6]),
    ],
)
def test_a_mode_pools_the_tokens_and_never_the_padding(mode: str, first: list[float]) -> None:
    vectors = Head([mode])(HIDDEN, LENGTHS)
    np.testing.assert_allclose(vectors, [first, [6, -8]], rtol=1e-6)
    assert vectors.dtype == np.float32


def test_a_text_that_is_all_negative_has_a_negative_maximum() -> None:
    assert Head(["max"])(-np.ones((1, 3, 2), np.float32), [2]).tolist() == [[-1, -1]]


def test_several_modes_are_concatenated_in_order() -> None:
    assert Head(["cls", "lasttoken"])(HIDDEN, LENGTHS)[0].tolist() == [1, 4, 5, 2]
    assert Head(["lasttoken", "cls"])(HIDDEN, LENGTHS)[0].tolist() == [5, 2, 1, 4]


@pytest.mark.parametrize(
    ("activation", "result"),
    [("Identity", [-2.0, 6.0]), ("ReLU", [0.0, 6.0]), ("Tanh", [np.tanh(-2.0), np.tanh(6.0)])],
)
def test_a_projection_has_weights_bias_and_activation(activation: str, result: list[float]) -> None:
    layer = Dense(np.array([[1, -1], [1, 1]], np.float32), np.array([1, 1], np.float32), activation)
    np.testing.assert_allclose(layer(np.array([[1, 4]], np.float32)), [result], rtol=1e-6)


def test_a_projection_may_lack_a_bias() -> None:
    layer = Dense(np.array([[1, -1]], np.float32), None, "Identity")
    assert layer(np.array([[1, 4]], np.float32)).tolist() == [[-3]]


def test_projections_follow_the_pooling_and_the_vectors_keep_their_length() -> None:
    double = Dense(2 * np.eye(2, dtype=np.float32), None, "Identity")
    assert Head(["cls"], [double, double])(HIDDEN, LENGTHS).tolist() == [[4, 16], [24, -32]]


@pytest.mark.parametrize(
    ("settings", "modes"),
    [
        ({"pooling_mode": "cls"}, ["cls"]),
        ({"pooling_mode": ["mean", "cls"]}, ["mean", "cls"]),
        ({"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}, ["mean"]),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True}, ["cls", "mean"]),
        ({"pooling_mode_lasttoken": True, "word_embedding_dimension": 8}, ["lasttoken"]),
        ({}, []),
    ],
)
def test_modes_are_read_from_new_and_older_configurations(settings: dict[str, Any], modes: list[str]) -> None:
    assert pooling_modes(settings) == modes


MEAN = ["Pooling", {"pooling_mode": "mean"}, "1_Pooling"]


def dense(folder: Path, activation: str | None = None, **weights: np.ndarray) -> list[Any]:
    """A projection in a folder, as a module."""
    (folder / "2_Dense").mkdir()
    save_file(weights, folder / "2_Dense" / "model.safetensors")
    settings = {} if activation is None else {"activation_function": activation}
    return ["Dense", settings, "2_Dense"]


def test_a_projection_is_read_from_its_folder(tmp_path: Path) -> None:
    weight, bias = np.array([[1, 0], [0, 2], [1, 1]], np.float16), np.array([0, 0, 1], np.float16)
    module = dense(tmp_path, "torch.nn.modules.linear.Identity", **{"linear.weight": weight, "linear.bias": bias})
    head = read_head("m", tmp_path, [MEAN, module])
    vectors = head(HIDDEN, LENGTHS)
    assert vectors.dtype == np.float32
    assert vectors[0].tolist() == [3, 4, 6]


def test_a_projection_without_an_activation_has_a_tanh(tmp_path: Path) -> None:
    module = dense(tmp_path, **{"linear.weight": np.eye(2, dtype=np.float32)})
    head = read_head("m", tmp_path, [MEAN, module])
    np.testing.assert_allclose(head(HIDDEN, LENGTHS)[0], np.tanh([3, 2]), rtol=1e-6)


def test_modules_that_change_nothing_here_are_accepted(tmp_path: Path) -> None:
    modules = [MEAN, ["Dropout", {"dropout": 0.1}, "2"], ["Normalize", {}, "3"]]
    head = read_head("m", tmp_path, modules)
    assert head(HIDDEN, LENGTHS)[0].tolist() == [3, 2]  # vectors are normalised when they are stored


@pytest.mark.parametrize(
    ("modules", "why"),
    [
        ([MEAN, ["LSTM", {}, ""]], "a module LSTM after its transformer, which only the torch backend runs: start"),
        ([MEAN, MEAN], "a module Pooling after its transformer"),
        ([["Dense", {}, ""]], "a module Dense after its transformer"),
        ([["Pooling", {"pooling_mode": "median"}, ""]], "unknown pooling .*median.*; set pooling in semel.toml to one"),
        ([["Pooling", {"pooling_mode": ["mean", "median"]}, ""]], "unknown pooling"),
        ([], "its files define no pooling; set pooling in semel.toml to one of cls, max"),
        ([["Pooling", {"pooling_mode": "mean", "include_prompt": False}, ""]], "pools without its prompt"),
        ([MEAN, ["Dense", {"activation_function": "torch.nn.GELU"}, "2_Dense"]], "a Dense layer with GELU, which only"),
        (
            [MEAN, ["Dense", {}, "2_Dense"]],
            r"2_Dense has no model\.safetensors, which every backend except torch needs",
        ),
    ],
)
def test_an_unknown_module_or_setting_is_refused(modules: list[Any], why: str, tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match=f"model 'm'.*{why}"):
        read_head("m", tmp_path, modules)


def test_the_refusal_of_a_prompt_left_out_names_the_setting() -> None:
    assert "include_prompt is false" in prompt_left_out("m")
