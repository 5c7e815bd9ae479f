"""From the logits of a cross-encoder or a classifier to its scores.

The cache holds logits, and the function is applied when they are read: so a caller can have either, from one row.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from semel.values.vectors import Vectors

IDENTITY = "Identity"


def _sigmoid(logits: Any) -> Any:
    return 1 / (1 + np.exp(-logits))


def _softmax(logits: Any) -> Any:
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


ACTIVATIONS: Mapping[str, Callable[[Any], Any]] = {
    IDENTITY: lambda logits: logits,
    "Sigmoid": _sigmoid,
    "Tanh": np.tanh,
    "Softmax": _softmax,
}
"""Functions by the name of torch's class; Softmax is that over the labels of a row."""


@dataclass(frozen=True)
class Head:
    """How the stored logits of a model become scores.

    Attributes:
        activation: a key of `ACTIVATIONS`.
        labels: the names of a classifier's scores, in order; none for other models.
    """

    activation: str = IDENTITY
    labels: tuple[str, ...] = ()

    def to_json(self) -> str:
        """The fields as JSON; "" if it changes nothing."""
        return "" if self == AS_STORED else json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Head":
        """The head that `to_json` wrote, or that a model's fingerprint contains among other fields."""
        given = json.loads(text) if text else {}
        return cls(str(given.get("activation", IDENTITY)), tuple(given.get("labels", ())))


AS_STORED = Head()
"""The head of a model without scores."""


def activated(name: str, logits: Vectors) -> Vectors:
    """Scores, float32 (n,) or (n, labels), from logits of the same shape.

    Args:
        name: a key of `ACTIVATIONS`.
    """
    with np.errstate(over="ignore"):  # the exponential of a logit of -1,000 is infinite, and the score is 0
        scores: Vectors = ACTIVATIONS[name](logits.astype(np.float64)).astype(np.float32)
    return scores
