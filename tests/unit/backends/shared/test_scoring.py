"""From a cross-encoder's logits to its scores."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semel.backends.shared.scoring import activation_of, check_one_score
from semel.errors import ModelLoadError
from tests.support.model_files import source, write_model

LOGITS = np.array([[-2.0], [0.0], [3.0]], np.float32)
SIGMOID = [0.1192, 0.5, 0.9526]
IDENTITY = [-2.0, 0.0, 3.0]


def scores(folder: Path, library: dict[str, Any] | None = None, **config: Any) -> list[float]:
    files = {} if library is None else {"config_sentence_transformers.json": library}
    result = activation_of(source(write_model(folder, files=files, **config)))(LOGITS)
    assert result.dtype == np.float32
    assert result.shape == LOGITS.shape
    values: list[float] = result[:, 0].tolist()
    return values


def test_a_model_that_names_no_activation_has_a_sigmoid(tmp_path: Path) -> None:
    assert scores(tmp_path) == pytest.approx(SIGMOID, abs=1e-4)


@pytest.mark.parametrize(
    ("library", "config"),
    [
        ({"activation_fn": "torch.nn.modules.linear.Identity"}, {}),
        (None, {"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}}),
        (None, {"sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"}),
        ({}, {"sentence_transformers": None, "sbert_ce_default_activation_function": "Identity"}),
    ],
)
def test_each_version_of_the_library_writes_the_activation_elsewhere(
    tmp_path: Path, library: dict[str, Any] | None, config: dict[str, Any]
) -> None:
    assert scores(tmp_path, library, **config) == IDENTITY


def test_the_newest_place_of_the_activation_wins(tmp_path: Path) -> None:
    library = {"activation_fn": "torch.nn.modules.activation.Sigmoid"}
    older = {"sentence_transformers": {"activation_fn": "torch.nn.Identity"}}
    assert scores(tmp_path, library, **older) == pytest.approx(SIGMOID, abs=1e-4)


def test_large_logits_neither_overflow_nor_warn(tmp_path: Path) -> None:
    activation = activation_of(source(write_model(tmp_path)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        extremes = activation(np.array([[-500.0], [500.0]], np.float32))
    assert extremes[:, 0].tolist() == [0.0, 1.0]


def test_another_activation_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="model 'm' turns its logits into scores with Tanh, which only the torch"):
        scores(tmp_path, {"activation_fn": "torch.nn.modules.activation.Tanh"})


def test_a_model_with_one_label_gives_a_score(tmp_path: Path) -> None:
    check_one_score(source(write_model(tmp_path, id2label={"0": "LABEL_0"})))


@pytest.mark.parametrize(
    ("config", "classes"),
    [({"id2label": {"0": "no", "1": "maybe", "2": "yes"}}, 3), ({}, 2), ({"id2label": None}, 2), ({"id2label": {}}, 2)],
)
def test_a_classifier_of_several_classes_is_refused(tmp_path: Path, config: dict[str, Any], classes: int) -> None:
    with pytest.raises(ModelLoadError, match=f"sorts pairs into {classes} classes and gives no score"):
        check_one_score(source(write_model(tmp_path, **config)))
