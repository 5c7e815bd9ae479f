"""From the logits of a cross-encoder or a classifier to its scores."""

import warnings

import numpy as np
import pytest

from semel.values.activation import ACTIVATIONS, AS_STORED, IDENTITY, Head, activated

LOGITS = np.array([-2.0, 0.0, 3.0], np.float32)


@pytest.mark.parametrize(
    ("name", "scores"),
    [("Identity", [-2.0, 0.0, 3.0]), ("Sigmoid", [0.1192, 0.5, 0.9526]), ("Tanh", [-0.9640, 0.0, 0.9951])],
)
def test_a_name_stands_for_its_function(name: str, scores: list[float]) -> None:
    result = activated(name, LOGITS)
    assert result.tolist() == pytest.approx(scores, abs=1e-4)
    assert (result.dtype, result.shape) == (np.float32, LOGITS.shape)


def test_no_function_is_untested() -> None:
    assert set(ACTIVATIONS) == {"Identity", "Sigmoid", "Softmax", "Tanh"}
    assert IDENTITY == "Identity"


@pytest.mark.parametrize(("name", "ends"), [("Sigmoid", [0.0, 1.0]), ("Tanh", [-1.0, 1.0])])
def test_large_logits_neither_overflow_nor_warn(name: str, ends: list[float]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        extremes = activated(name, np.array([-1000.0, 1000.0], np.float32))
    assert extremes.tolist() == ends


def test_an_unknown_name_is_an_error() -> None:
    with pytest.raises(KeyError):
        activated("Softplus", LOGITS)


def test_the_softmax_is_that_of_each_row() -> None:
    scores = activated("Softmax", np.array([[0, 0, 0, 0], [1000, 0, -1000, 0]], np.float32))
    assert scores.tolist() == [[0.25, 0.25, 0.25, 0.25], [1.0, 0.0, 0.0, 0.0]]


def test_a_head_survives_json() -> None:
    head = Head("Softmax", ("good", "bad"))
    assert Head.from_json(head.to_json()) == head
    assert (AS_STORED.to_json(), Head.from_json("")) == ("", AS_STORED)


@pytest.mark.parametrize("name", sorted(ACTIVATIONS.keys() - {"Softmax"}))
def test_a_higher_logit_never_has_a_lower_score(name: str) -> None:
    scores = activated(name, np.linspace(-20, 20, 401, dtype=np.float32))
    assert (np.diff(scores) >= 0).all()
