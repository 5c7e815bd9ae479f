"""Decoders as embedding models and rerankers on MLX: mlx-lm's layers, run for their hidden states. Imports mlx_lm.

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
"""Those whose hidden states are compared with transformers' by a test."""

_SAME_LAYERS = {"mistral": "llama"}
"""mlx-lm builds them from the other's layers."""


class Decoder:
    """Hidden states of a causal language model, or of Gemma 3 with attention in both directions (EmbeddingGemma).

    Args:
        name: of the model, for messages.
        max_tokens: of the longest text.
        with_head: keep the language head, for `logits`.

    Raises:
        ModelLoadError: a variant that mlx-lm's layers are not, or weights that are missing or too many.
    """

    def __init__(
        self, name: str, folder: Path, config: dict[str, Any], *, max_tokens: int, with_head: bool = False
    ) -> None:
        self._bidirectional = bool(config.get("use_bidirectional_attention"))
        kind = config["model_type"]
        if config.get("is_causal") is False or (self._bidirectional and kind != "gemma3_text"):
            raise ModelLoadError(
                f"model {name!r} looks in both directions, which the MLX backend does for Gemma 3 alone; "
                "the torch backend runs it: --device cpu, cuda or mps"
            )
        window = _window(config)
        if kind != "gemma3_text" and window is not None and max_tokens > window:
            raise ModelLoadError(
                f"model {name!r} looks no further than {window} tokens in some layers, which mlx-lm does not do: add "
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
        """Hidden states (texts, tokens, width) after the last norm, for ids and mask padded on the right.

        Causal attention never looks at the padding behind a text, so it needs no mask.
        """
        if self._kind != "gemma3_text":
            return self.module.model(ids)
        return self._gemma3(ids, mask)

    def logits(self, hidden: mx.array) -> mx.array:
        """Of the vocabulary, (texts, vocabulary), for hidden states (texts, width)."""
        if hasattr(self.module, "lm_head"):
            return self.module.lm_head(hidden)
        return self.module.model.embed_tokens.as_linear(hidden)

    def _gemma3(self, ids: mx.array, mask: mx.array) -> mx.array:
        """mlx-lm's layers with the masks of `transformers/models/gemma3/modeling_gemma3.py`.

        mlx-lm rounds the scale of the embedding to bfloat16 whatever the dtype, and knows causal attention only.
        """
        inner = self.module.model
        hidden = inner.embed_tokens(ids)
        hidden = hidden * mx.array(self._config["hidden_size"] ** 0.5, hidden.dtype)
        places = mx.arange(ids.shape[1])
        distance = places[:, None] - places[None]
        window = self._config["sliding_window"]
        if self._bidirectional:
            everywhere = mask[:, None, None, :].astype(mx.bool_)
            near = everywhere & (mx.abs(distance) < window // 2 + 1)
        else:
            everywhere = distance >= 0
            near = everywhere & (distance < window)
        every = inner.sliding_window_pattern
        for i, layer in enumerate(inner.layers):
            hidden = layer(hidden, everywhere if i % every == every - 1 else near, None)
        return inner.norm(hidden)


def _classes(config: dict[str, Any], *, with_head: bool) -> tuple[type[nn.Module], type]:
    """mlx-lm's model class, taking checkpoints of the bare transformer and leaving out a head that is not needed."""
    arch = importlib.import_module(f"mlx_lm.models.{_SAME_LAYERS.get(config['model_type'], config['model_type'])}")

    class Trimmed(arch.Model):  # type: ignore[name-defined]
        def sanitize(self, weights: dict[str, mx.array]) -> dict[str, mx.array]:
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
    """Tokens that the layers with a sliding window look at; None when there are none."""
    if config["model_type"].startswith("qwen") and not config.get("use_sliding_window"):
        return None
    return config.get("sliding_window")


def _flat(config: dict[str, Any]) -> dict[str, Any]:
    """What mlx-lm reads of a configuration that transformers 5 wrote: it nests what used to be flat."""
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
    """Every how many layers Gemma 3 looks everywhere. Raises ValueError when the layers have no such rhythm."""
    kinds = config.get("layer_types")
    if not kinds:
        return int(config.get("sliding_window_pattern") or config.get("_sliding_window_pattern") or 6)
    every = kinds.index("full_attention") + 1 if "full_attention" in kinds else len(kinds) + 1
    expected = ["sliding_attention" if (i + 1) % every else "full_attention" for i in range(len(kinds))]
    if kinds != expected:
        raise ValueError(f"its layer_types {kinds} follow no pattern")
    return every
