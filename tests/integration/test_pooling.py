"""Pooling and projection without torch give the numbers of sentence-transformers."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers.sentence_transformer.modules import Dense, Pooling

from semel.backends.shared.pooling import read_head

MODES = ["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]
HIDDEN = np.random.default_rng(0).standard_normal((3, 7, 8)).astype(np.float32)
LENGTHS = [7, 4, 1]
MASK = torch.tensor([[1] * length + [0] * (7 - length) for length in LENGTHS])


def reference(*modules: torch.nn.Module) -> np.ndarray:
    features = {"token_embeddings": torch.from_numpy(HIDDEN.copy()), "attention_mask": MASK}
    with torch.no_grad():
        for module in modules:
            features = module(features)
    return features["sentence_embedding"].numpy()


@pytest.mark.parametrize("modes", [*([mode] for mode in MODES), ["mean", "cls"]], ids=str)
def test_each_mode_gives_the_vectors_of_the_library(modes: list[str], tmp_path: Path) -> None:
    head = read_head("m", tmp_path, [["Pooling", {"pooling_mode": modes}, ""]])
    np.testing.assert_allclose(head(HIDDEN, LENGTHS), reference(Pooling(8, pooling_mode=tuple(modes))), atol=1e-6)


@pytest.mark.parametrize("activation", [torch.nn.Tanh(), torch.nn.Identity(), torch.nn.ReLU()], ids=str)
def test_a_projection_gives_the_vectors_of_the_library(activation: torch.nn.Module, tmp_path: Path) -> None:
    torch.manual_seed(0)
    dense = Dense(8, 5, activation_function=activation)
    (tmp_path / "2_Dense").mkdir()
    dense.save(str(tmp_path / "2_Dense"))
    settings = json.loads((tmp_path / "2_Dense" / "config.json").read_text())
    modules = [["Pooling", {"pooling_mode": "mean"}, ""], ["Dense", settings, "2_Dense"], ["Normalize", {}, ""]]
    head = read_head("m", tmp_path, modules)
    np.testing.assert_allclose(head(HIDDEN, LENGTHS), reference(Pooling(8), dense), atol=1e-6)
