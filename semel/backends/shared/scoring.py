"""From a cross-encoder's logit to its score, as sentence-transformers' CrossEncoder decides it from its files."""

from collections.abc import Callable

import numpy as np

from semel.backends.models.source import ModelSource
from semel.errors import ModelLoadError
from semel.values.vectors import Vectors


def activation_of(source: ModelSource) -> Callable[[Vectors], Vectors]:
    """The function from logits to scores, float32 (n, 1) both. Raises ModelLoadError for one that is not known."""
    config = source.config
    own = source.library_config.get("activation_fn") or (config.get("sentence_transformers") or {}).get("activation_fn")
    name = str(own or config.get("sbert_ce_default_activation_function") or "Sigmoid").rsplit(".", 1)[-1]
    if name == "Sigmoid":
        return _sigmoid
    if name == "Identity":
        return lambda logits: logits
    raise ModelLoadError(
        f"model {source.name!r} puts {name} behind its logits, which only the torch backend does: --device cpu or cuda"
    )


def check_one_score(source: ModelSource) -> None:
    """Raises ModelLoadError for a classifier of several classes."""
    classes = len(source.config.get("id2label") or {0: "", 1: ""})  # transformers' default is two
    if classes != 1:
        raise ModelLoadError(f"model {source.name!r} sorts pairs into {classes} classes; a reranker gives one score")


def _sigmoid(logits: Vectors) -> Vectors:
    scores: Vectors = (1 / (1 + np.exp(-logits.astype(np.float64)))).astype(np.float32)
    return scores
