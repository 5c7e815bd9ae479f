"""From a cross-encoder's logits to its scores, by the rules of sentence-transformers' CrossEncoder."""

from collections.abc import Callable

import numpy as np

from semel.backends.models.source import ModelSource
from semel.errors import ModelLoadError
from semel.values.vectors import Vectors


def activation_of(source: ModelSource) -> Callable[[Vectors], Vectors]:
    """The function from logits to scores, float32 (n, 1) both, that a model's files name.

    Raises:
        ModelLoadError: an activation other than Sigmoid and Identity.
    """
    config = source.config
    newer = (config.get("sentence_transformers") or {}).get("activation_fn")
    named = source.library_config.get("activation_fn") or newer or config.get("sbert_ce_default_activation_function")
    name = str(named or "Sigmoid").rsplit(".", 1)[-1]
    if name == "Sigmoid":
        return _sigmoid
    if name == "Identity":
        return lambda logits: logits
    raise ModelLoadError(
        f"model {source.name!r} turns its logits into scores with {name}, which only the torch backend runs: "
        "use --device cpu or cuda"
    )


def check_one_score(source: ModelSource) -> None:
    """Raises ModelLoadError if the model is a classifier with several classes."""
    classes = len(source.config.get("id2label") or {0: "", 1: ""})  # transformers' default is two
    if classes != 1:
        raise ModelLoadError(
            f"model {source.name!r} sorts pairs into {classes} classes and gives no score; use a model with one label"
        )


def _sigmoid(logits: Vectors) -> Vectors:
    scores: Vectors = (1 / (1 + np.exp(-logits.astype(np.float64)))).astype(np.float32)
    return scores
