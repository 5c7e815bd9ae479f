"""From hidden states to vectors without torch: pooling and projection, as sentence-transformers' modules define them.

Backends whose framework runs only the transformer use it. The formulas are those of `sentence_transformers` 6.2
(`modules/pooling.py`, `modules/dense.py`); tests compare each with it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from semel.errors import ModelLoadError
from semel.values.vectors import Vectors

_ACTIVATIONS: dict[str, Callable[[Vectors], Vectors]] = {
    "Identity": lambda values: values,
    "Tanh": np.tanh,
    "ReLU": lambda values: np.maximum(values, 0),
}
"""Activations of a Dense layer, by the name of torch's class."""

_MODES = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")

_OLD_NAMES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
"""Keys of configurations older than sentence-transformers 5.5 → modes, in the order of their blocks in the vector."""


@dataclass(frozen=True)
class Dense:
    """A linear layer with its activation.

    Attributes:
        weight: float32 (out, in).
        bias: float32 (out,), or None.
        activation: a key of `_ACTIVATIONS`.
    """

    weight: Vectors
    bias: npt.NDArray[np.float32] | None
    activation: str

    def __call__(self, vectors: Vectors) -> Vectors:
        """Project vectors, float32 (n, in), to float32 (n, out)."""
        values: Vectors = vectors @ self.weight.T
        if self.bias is not None:
            values = values + self.bias
        return _ACTIVATIONS[self.activation](values)


@dataclass(frozen=True)
class Head:
    """Turns the hidden states of a text into one vector.

    Attributes:
        modes: pooling modes; the vectors of several modes are concatenated.
        layers: projections after the pooling, in order.
    """

    modes: Sequence[str]
    layers: Sequence[Dense] = field(default_factory=list)

    def __call__(self, hidden: npt.NDArray[np.float32], lengths: Sequence[int]) -> Vectors:
        """Return vectors, float32 (texts, dim).

        Args:
            hidden: hidden states (texts, longest, width), padded on the right.
            lengths: number of tokens of each text without padding, at least 1.
        """
        counts = np.asarray(lengths, np.int64)
        vectors = np.concatenate([_pool(mode, hidden, counts) for mode in self.modes], axis=1)
        for layer in self.layers:
            vectors = layer(vectors)
        return np.ascontiguousarray(vectors, np.float32)


def _pool(mode: str, hidden: npt.NDArray[np.float32], counts: npt.NDArray[np.int64]) -> Vectors:
    """One vector for each text, float32 (texts, width)."""
    rows, longest, _ = hidden.shape
    if mode == "cls":
        return hidden[:, 0]
    if mode == "lasttoken":
        return hidden[np.arange(rows), counts - 1]
    real = np.arange(longest) < counts[:, None]  # false for padding
    if mode == "max":
        highest: Vectors = np.where(real[:, :, None], hidden, -np.inf).max(axis=1)
        return highest
    weights = real * np.arange(1, longest + 1) if mode == "weightedmean" else real
    weights = weights.astype(np.float32)
    total: Vectors = np.einsum("rl,rlw->rw", weights, hidden)
    divisor = weights.sum(axis=1, keepdims=True)
    pooled: Vectors = total / (np.sqrt(divisor) if mode == "mean_sqrt_len_tokens" else divisor)
    return pooled


def read_head(model: str, root: Path, modules: Sequence[Sequence[Any]]) -> Head:
    """Read the head that a model's files define.

    Args:
        model: its name, for messages.
        root: the model's folder.
        modules: the modules after the transformer: [kind, configuration, folder] each.

    Raises:
        ModelLoadError: a module other than Pooling, Dense and Normalize, an unknown setting, or missing weights.
    """
    modes: list[str] = []
    layers = []
    for kind, settings, folder in modules:
        if kind == "Pooling" and not modes:
            if settings.get("include_prompt") is False:
                raise ModelLoadError(prompt_left_out(model))
            modes = pooling_modes(settings)
        elif kind == "Dense" and modes:
            layers.append(_read_dense(model, root / folder, settings))
        elif kind not in ("Normalize", "Dropout"):
            raise ModelLoadError(
                f"model {model!r} has a module {kind} after its transformer, which only the torch backend runs: "
                "start a worker with --device cpu or cuda"
            )
    if not modes or any(mode not in _MODES for mode in modes):
        given = f"unknown pooling {modes}" if modes else "its files define no pooling"
        raise ModelLoadError(f"model {model!r}: {given}; set pooling in semel.toml to one of {', '.join(_MODES)}")
    return Head(modes, layers)


def prompt_left_out(model: str) -> str:
    """The error for a model that pools without its prompt, which every backend refuses."""
    return f"model {model!r} pools without its prompt (include_prompt is false), which semel does not support"


def pooling_modes(settings: dict[str, Any]) -> list[str]:
    """The modes that a Pooling configuration switches on, in the order of their blocks in the vector."""
    modes = settings.get("pooling_mode")
    if modes:
        return [modes] if isinstance(modes, str) else list(modes)
    return [name for key, name in _OLD_NAMES.items() if settings.get(key)]


def _read_dense(model: str, folder: Path, settings: dict[str, Any]) -> Dense:
    """Read a projection from its folder. Raises ModelLoadError."""
    from safetensors.numpy import load_file

    activation = str(settings.get("activation_function", "torch.nn.modules.activation.Tanh")).rsplit(".", 1)[-1]
    if activation not in _ACTIVATIONS:
        raise ModelLoadError(
            f"model {model!r} has a Dense layer with {activation}, which only the torch backend runs (the others run "
            f"{', '.join(_ACTIVATIONS)}): start a worker with --device cpu or cuda"
        )
    file = folder / "model.safetensors"
    if not file.exists():
        raise ModelLoadError(
            f"model {model!r}: {folder} has no model.safetensors, which every backend except torch needs: "
            "start a worker with --device cpu or cuda"
        )
    weights = {name.rsplit(".", 1)[-1]: values.astype(np.float32) for name, values in load_file(file).items()}
    return Dense(weights["weight"], weights.get("bias"), activation)
