"""BERT-class encoders on mlx.nn: BERT, RoBERTa, XLM-RoBERTa and CamemBERT. Imports mlx, so import it late.

The layers are those of `transformers/models/bert/modeling_bert.py`. Their attributes have the names of the weights, so
a checkpoint maps onto them by name. Weights are mapped from safetensors and read at first use; torch is not needed.
"""

from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx import nn

from semel.errors import ModelLoadError

MODEL_TYPES = ("bert", "roberta", "xlm-roberta", "camembert")
"""Architectures whose vectors are compared with transformers' by a test."""

_ACTIVATIONS = {
    "gelu": nn.gelu,
    "gelu_new": nn.gelu_approx,
    "gelu_pytorch_tanh": nn.gelu_approx,
    "relu": nn.relu,
}

_UNUSED = ("pooler.", "cls.", "lm_head.", "classifier.")
"""Prefixes of the weights that an embedding does not use."""

_OLD_NAMES = {"gamma": "weight", "beta": "bias"}
"""Names of LayerNorm's weights in checkpoints from TensorFlow → names here."""


class Embeddings(nn.Module):
    """The sum of the embeddings of words, positions and segments, normalised."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        width = config["hidden_size"]
        self.word_embeddings = nn.Embedding(config["vocab_size"], width)
        self.position_embeddings = nn.Embedding(config["max_position_embeddings"], width)
        self.token_type_embeddings = nn.Embedding(config.get("type_vocab_size", 2), width)
        self.LayerNorm = nn.LayerNorm(width, eps=config.get("layer_norm_eps", 1e-12))
        # RoBERTa's first position is the padding id plus one, and padding ids have none; BERT counts from 0.
        self._pad_id = None if config["model_type"] == "bert" else config.get("pad_token_id", 1)

    def __call__(self, ids: mx.array, segments: mx.array) -> mx.array:
        """Return embeddings (texts, tokens, width) for int ids and segments (texts, tokens)."""
        if self._pad_id is None:
            positions = mx.arange(ids.shape[1])[None]
        else:
            real = (ids != self._pad_id).astype(mx.int32)
            positions = mx.cumsum(real, axis=1) * real + self._pad_id
        words = self.word_embeddings(ids) + self.token_type_embeddings(segments)
        return self.LayerNorm(words + self.position_embeddings(positions))


class SelfAttention(nn.Module):
    """Multi-head attention."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        width = config["hidden_size"]
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self._heads = config["num_attention_heads"]

    def __call__(self, hidden: mx.array, mask: mx.array) -> mx.array:
        """Mix hidden states (texts, tokens, width); `mask` bool (texts, 1, 1, tokens) is false for padding."""
        query, key, value = (
            mx.unflatten(project(hidden), -1, (self._heads, -1)).transpose(0, 2, 1, 3)
            for project in (self.query, self.key, self.value)
        )
        scale = query.shape[-1] ** -0.5
        mixed = mx.fast.scaled_dot_product_attention(query, key, value, scale=scale, mask=mask)
        return mixed.transpose(0, 2, 1, 3).flatten(-2)


class AddAndNorm(nn.Module):
    """A linear layer, the residual sum and LayerNorm.

    Args:
        width_in: width of the linear layer's input.
    """

    def __init__(self, config: dict[str, Any], width_in: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width_in, config["hidden_size"])
        self.LayerNorm = nn.LayerNorm(config["hidden_size"], eps=config.get("layer_norm_eps", 1e-12))

    def __call__(self, values: mx.array, residual: mx.array) -> mx.array:
        """Return hidden states like `residual` (texts, tokens, width), from values (texts, tokens, width_in)."""
        return self.LayerNorm(self.dense(values) + residual)


class Layer(nn.Module):
    """One layer of the encoder: attention and feed-forward."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        width, inner = config["hidden_size"], config["intermediate_size"]
        self.attention: dict[str, Any] = {"self": SelfAttention(config), "output": AddAndNorm(config, width)}
        self.intermediate = {"dense": nn.Linear(width, inner)}
        self.output = AddAndNorm(config, inner)
        self._activation = _ACTIVATIONS[config.get("hidden_act", "gelu")]

    def __call__(self, hidden: mx.array, mask: mx.array) -> mx.array:
        """Return the layer's hidden states (texts, tokens, width); `mask` as for `SelfAttention`."""
        hidden = self.attention["output"](self.attention["self"](hidden, mask), hidden)
        return self.output(self._activation(self.intermediate["dense"](hidden)), hidden)


class Encoder(nn.Module):
    """The transformer, up to the hidden states of the last layer."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        self.embeddings = Embeddings(config)
        self.encoder = {"layer": [Layer(config) for _ in range(config["num_hidden_layers"])]}

    def __call__(self, ids: mx.array, mask: mx.array, segments: mx.array | None = None) -> mx.array:
        """Return hidden states (texts, tokens, width) for int ids, mask and segments (texts, tokens)."""
        hidden = self.embeddings(ids, mx.zeros_like(ids) if segments is None else segments)
        visible = mask[:, None, None, :].astype(mx.bool_)
        for layer in self.encoder["layer"]:
            hidden = layer(hidden, visible)
        return hidden


class Classifier(nn.Module):
    """An encoder with the head of `…ForSequenceClassification`."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        self.model = Encoder(config)
        width, labels = config["hidden_size"], len(config.get("id2label") or {0: "", 1: ""})
        self._pools = config["model_type"] == "bert"
        if self._pools:
            self.pooler = {"dense": nn.Linear(width, width)}
            self.classifier = nn.Linear(width, labels)
        else:
            self.classifier = {"dense": nn.Linear(width, width), "out_proj": nn.Linear(width, labels)}

    def __call__(self, ids: mx.array, mask: mx.array, segments: mx.array | None = None) -> mx.array:
        """Return logits (pairs, labels) for int ids, mask and segments (pairs, tokens)."""
        first = self.model(ids, mask, segments)[:, 0]
        if self._pools:
            return self.classifier(mx.tanh(self.pooler["dense"](first)))
        return self.classifier["out_proj"](mx.tanh(self.classifier["dense"](first)))


def load(name: str, folder: Path, config: dict[str, Any], *, with_head: bool = False) -> nn.Module:
    """Load a model with its weights, in the dtype in which they are stored.

    Args:
        name: the model's name, for messages.
        folder: the folder with the weights.
        config: the transformer's config.json.
        with_head: a Classifier instead of an Encoder.

    Raises:
        ModelLoadError: a variant of the architecture that these layers do not implement, or weights that do not match.
    """
    activation, positions = config.get("hidden_act", "gelu"), config.get("position_embedding_type", "absolute")
    if activation not in _ACTIVATIONS or positions != "absolute" or config.get("is_decoder"):
        kind = "decoder" if config.get("is_decoder") else "encoder"
        raise ModelLoadError(
            f"model {name!r}: the MLX backend runs encoders with absolute positions and {', '.join(_ACTIVATIONS)}; "
            f"this {kind} has {positions} positions and {activation}; torch runs it: use --device cpu, cuda or mps"
        )
    model = Classifier(config) if with_head else Encoder(config)
    weights: dict[str, mx.array] = {}
    for file in sorted(folder.glob("*.safetensors")):
        stored: Any = mx.load(str(file))  # a dict, for safetensors
        weights |= _renamed(stored, with_head=with_head)
    try:
        model.load_weights(list(weights.items()), strict=True)
    except ValueError as error:
        raise ModelLoadError(f"model {name!r}: the weights in {folder} do not match its config.json: {error}") from None
    return model


def _renamed(stored: dict[str, mx.array], *, with_head: bool) -> dict[str, mx.array]:
    """Weights by the names of the modules above, from those of the checkpoint; leaves out what they do not use."""
    renamed = {}
    for key, values in stored.items():
        short = key
        for prefix in ("bert.", "roberta.", "model."):
            short = short.removeprefix(prefix)
        first, _, last = short.rpartition(".")
        if "LayerNorm" in first:
            short = f"{first}.{_OLD_NAMES.get(last, last)}"
        if short.endswith("position_ids"):
            continue
        if not short.startswith(_UNUSED):
            renamed[f"model.{short}" if with_head else short] = values
        elif with_head and short.startswith(("pooler.", "classifier.")):
            renamed[short] = values
    return renamed
