"""Decoders as embedding models and rerankers on MLX, with mlx-lm's layers. Imports mlx_lm, so import it late.

Quantised checkpoints (4-bit, DWQ) keep the scales and biases of each group as they are stored.
"""

import importlib
from functools import partial
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx import nn
from mlx_lm.utils import load_model

from semel.errors import ModelLoadError

MODEL_TYPES = ("qwen3", "qwen2", "llama", "mistral", "gemma2", "gemma3_text")
"""Architectures whose hidden states are compared with transformers' by a test."""

_SAME_LAYERS = {"mistral": "llama"}
"""Architecture → the one from whose layers mlx-lm builds it."""


class Decoder:
    """A causal language model, or Gemma 3 with attention in both directions (EmbeddingGemma), for its hidden states.

    Args:
        name: the model's name, for messages.
        folder: the folder with its files.
        config: the transformer's config.json.
        max_tokens: length of the longest text.
        with_head: keep the language head, for `logits`.

    Attributes:
        module: mlx-lm's model.

    Raises:
        ModelLoadError: a variant that mlx-lm's layers do not implement, or weights that do not match.
    """

    def __init__(
        self, name: str, folder: Path, config: dict[str, Any], *, max_tokens: int, with_head: bool = False
    ) -> None:
        self._bidirectional = bool(config.get("use_bidirectional_attention"))
        kind = config["model_type"]
        if config.get("is_causal") is False or (self._bidirectional and kind != "gemma3_text"):
            raise ModelLoadError(
                f"model {name!r} attends in both directions, which the MLX backend supports only for Gemma 3; "
                "torch runs it: use --device cpu, cuda or mps"
            )
        window = _window(config)
        if kind != "gemma3_text" and window is not None and max_tokens > window:
            raise ModelLoadError(
                f"model {name!r} attends to only {window} tokens in some layers, which mlx-lm does not implement: add "
                f"max_tokens = {window} or less to its entry in semel.toml, or use --device cpu, cuda or mps"
            )
        classes = partial(_classes, with_head=with_head)
        try:
            self.module, _ = load_model(folder, model_config=_flat(config), get_model_classes=classes)
        except (ValueError, KeyError, FileNotFoundError) as error:
            raise ModelLoadError(f"model {name!r} in {folder} cannot be loaded by mlx-lm: {error}") from error
        self._config = config
        self._kind = kind

    def __call__(self, ids: mx.array, mask: mx.array) -> mx.array:
        """Return hidden states (texts, tokens, width) after the last norm.

        Causal attention never sees the padding after a text, so it needs no mask.

        Args:
            ids, mask: int (texts, tokens), padded on the right.
        """
        if self._kind != "gemma3_text":
            return self.module.model(ids)
        return self._gemma3(ids, mask)

    def logits(self, hidden: mx.array) -> mx.array:
        """Return the logits of the vocabulary, (texts, vocabulary), for hidden states (texts, width)."""
        if hasattr(self.module, "lm_head"):
            return self.module.lm_head(hidden)
        return self.module.model.embed_tokens.as_linear(hidden)

    def _gemma3(self, ids: mx.array, mask: mx.array) -> mx.array:
        """Run mlx-lm's layers with the masks of `transformers/models/gemma3/modeling_gemma3.py`.

        mlx-lm itself rounds the scale of the embedding to bfloat16 for every dtype, and has only causal attention.
        """
        inner = self.module.model
        hidden = inner.embed_tokens(ids)
        hidden = hidden * mx.array(self._config["hidden_size"] ** 0.5, hidden.dtype)
        positions = mx.arange(ids.shape[1])
        distance = positions[:, None] - positions[None]
        window = self._config["sliding_window"]
        if self._bidirectional:
            everywhere = mask[:, None, None, :].astype(mx.bool_)
            near = everywhere & (mx.abs(distance) < window // 2 + 1)
        else:
            everywhere = distance >= 0
            near = everywhere & (distance < window)
        pattern = inner.sliding_window_pattern
        for i, layer in enumerate(inner.layers):
            hidden = layer(hidden, everywhere if i % pattern == pattern - 1 else near, None)
        return inner.norm(hidden)


def _classes(config: dict[str, Any], *, with_head: bool) -> tuple[type[nn.Module], type]:
    """mlx-lm's model class, which accepts checkpoints of the bare transformer and drops a head that is not used."""
    arch = importlib.import_module(f"mlx_lm.models.{_SAME_LAYERS.get(config['model_type'], config['model_type'])}")

    class Trimmed(arch.Model):  # type: ignore[name-defined]
        def sanitize(self, weights: dict[str, mx.array]) -> dict[str, mx.array]:
            """Rename and drop weights; mlx-lm calls this before it loads them."""
            named = {
                key if key.startswith(("model.", "lm_head.")) else f"model.{key}": values
                for key, values in weights.items()
            }
            if hasattr(super(), "sanitize"):
                named = super().sanitize(named)
            if not with_head:
                self.pop("lm_head", None)
                named = {key: values for key, values in named.items() if not key.startswith("lm_head.")}
            return named

    return Trimmed, arch.ModelArgs


def _window(config: dict[str, Any]) -> int | None:
    """Tokens that a layer with a sliding window attends to; None if the model has no such layer."""
    if config["model_type"].startswith("qwen") and not config.get("use_sliding_window"):
        return None
    return config.get("sliding_window")


def _flat(config: dict[str, Any]) -> dict[str, Any]:
    """The keys that mlx-lm reads, from a configuration of transformers 5, which nests keys that used to be flat.

    Raises ValueError as `_pattern`.
    """
    flat: dict[str, Any] = {}
    rope = config.get("rope_parameters") or {}
    if config["model_type"] == "gemma3_text" and "full_attention" in rope:
        full, local = rope["full_attention"], rope["sliding_attention"]
        flat |= {"rope_theta": full["rope_theta"], "rope_local_base_freq": local["rope_theta"]}
        if full.get("rope_type", "default") != "default":
            flat["rope_scaling"] = full
    elif "rope_theta" in rope:
        flat["rope_theta"] = rope["rope_theta"]
        if rope.get("rope_type", "default") != "default":
            flat["rope_scaling"] = rope
    if config["model_type"] == "gemma3_text":
        flat["sliding_window_pattern"] = _pattern(config)
    return flat


def _pattern(config: dict[str, Any]) -> int:
    """n, if every n-th layer of Gemma 3 has full attention. Raises ValueError if the layers follow no such pattern."""
    kinds = config.get("layer_types")
    if not kinds:
        return int(config.get("sliding_window_pattern") or config.get("_sliding_window_pattern") or 6)
    pattern = kinds.index("full_attention") + 1 if "full_attention" in kinds else len(kinds) + 1
    expected = ["sliding_attention" if (i + 1) % pattern else "full_attention" for i in range(len(kinds))]
    if kinds != expected:
        raise ValueError(f"its layer_types {kinds} follow no pattern")
    return pattern
