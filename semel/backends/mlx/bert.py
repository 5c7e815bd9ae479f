"""BERT-class encoders on mlx.nn: BERT, RoBERTa, XLM-RoBERTa and CamemBERT. Imports mlx; load it late.

The layers of `transformers/models/bert/modeling_bert.py`, with attributes named as the weights are, so that a
checkpoint maps onto them by name. Weights are mapped from safetensors and read when first used; torch is not needed.
"""

from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx import nn

from semel.errors import ModelLoadError

MODEL_TYPES = ("bert", "roberta", "xlm-roberta", "camembert")

_ACTIVATIONS = {
    "gelu": nn.gelu,
    "gelu_new": nn.gelu_approx,
    "gelu_pytorch_tanh": nn.gelu_approx,
    "relu": nn.relu,
}

_UNUSED = ("pooler.", "cls.", "lm_head.", "classifier.")
"""Parts of a checkpoint that an embedding does not pass through."""

_OLD_NAMES = {"gamma": "weight", "beta": "bias"}
"""Of LayerNorm, in checkpoints that came from TensorFlow."""


class Embeddings(nn.Module):
    """Words, positions and segments, added and normalised."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        width = config["hidden_size"]
        self.word_embeddings = nn.Embedding(config["vocab_size"], width)
        self.position_embeddings = nn.Embedding(config["max_position_embeddings"], width)
        self.token_type_embeddings = nn.Embedding(config.get("type_vocab_size", 2), width)
        self.LayerNorm = nn.LayerNorm(width, eps=config.get("layer_norm_eps", 1e-12))
        # RoBERTa counts positions from behind the padding id and gives padding ids none; BERT counts from 0.
        self._pad_id = None if config["model_type"] == "bert" else config.get("pad_token_id", 1)

    def __call__(self, ids: mx.array, segments: mx.array) -> mx.array:
        if self._pad_id is None:
            places = mx.arange(ids.shape[1])[None]
        else:
            there = (ids != self._pad_id).astype(mx.int32)
            places = mx.cumsum(there, axis=1) * there + self._pad_id
        words = self.word_embeddings(ids) + self.token_type_embeddings(segments)
        return self.LayerNorm(words + self.position_embeddings(places))


class SelfAttention(nn.Module):
    """Multi-head attention; `mask` bool (texts, 1, 1, tokens) is true where a token may be looked at."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        width = config["hidden_size"]
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self._heads = config["num_attention_heads"]

    def __call__(self, hidden: mx.array, mask: mx.array) -> mx.array:
        query, key, value = (
            mx.unflatten(project(hidden), -1, (self._heads, -1)).transpose(0, 2, 1, 3)
            for project in (self.query, self.key, self.value)
        )
        scale = query.shape[-1] ** -0.5
        mixed = mx.fast.scaled_dot_product_attention(query, key, value, scale=scale, mask=mask)
        return mixed.transpose(0, 2, 1, 3).flatten(-2)


class AddAndNorm(nn.Module):
    """A linear layer, the residual sum, LayerNorm."""

    def __init__(self, config: dict[str, Any], width_in: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width_in, config["hidden_size"])
        self.LayerNorm = nn.LayerNorm(config["hidden_size"], eps=config.get("layer_norm_eps", 1e-12))

    def __call__(self, values: mx.array, residual: mx.array) -> mx.array:
        return self.LayerNorm(self.dense(values) + residual)


class Layer(nn.Module):
    """Attention and feed-forward."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        width, inner = config["hidden_size"], config["intermediate_size"]
        self.attention: dict[str, Any] = {"self": SelfAttention(config), "output": AddAndNorm(config, width)}
        self.intermediate = {"dense": nn.Linear(width, inner)}
        self.output = AddAndNorm(config, inner)
        self._activation = _ACTIVATIONS[config.get("hidden_act", "gelu")]

    def __call__(self, hidden: mx.array, mask: mx.array) -> mx.array:
        hidden = self.attention["output"](self.attention["self"](hidden, mask), hidden)
        return self.output(self._activation(self.intermediate["dense"](hidden)), hidden)


class Encoder(nn.Module):
    """The transformer; its hidden states are those of the last layer."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        self.embeddings = Embeddings(config)
        self.encoder = {"layer": [Layer(config) for _ in range(config["num_hidden_layers"])]}

    def __call__(self, ids: mx.array, mask: mx.array, segments: mx.array | None = None) -> mx.array:
        """Hidden states (texts, tokens, width) for int ids and mask (texts, tokens)."""
        hidden = self.embeddings(ids, mx.zeros_like(ids) if segments is None else segments)
        where = mask[:, None, None, :].astype(mx.bool_)
        for layer in self.encoder["layer"]:
            hidden = layer(hidden, where)
        return hidden


class Classifier(nn.Module):
    """An encoder with the head of `…ForSequenceClassification`: logits (pairs, labels)."""

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
        first = self.model(ids, mask, segments)[:, 0]
        if self._pools:
            return self.classifier(mx.tanh(self.pooler["dense"](first)))
        return self.classifier["out_proj"](mx.tanh(self.classifier["dense"](first)))


def load(name: str, folder: Path, config: dict[str, Any], *, with_head: bool = False) -> nn.Module:
    """The model with its weights, in the dtype in which they are stored.

    Args:
        name: of the model, for messages.
        with_head: a Classifier instead of an Encoder.

    Raises:
        ModelLoadError: a variant that these layers are not, or a checkpoint whose weights are not exactly theirs.
    """
    activation, places = config.get("hidden_act", "gelu"), config.get("position_embedding_type", "absolute")
    if activation not in _ACTIVATIONS or places != "absolute" or config.get("is_decoder"):
        raise ModelLoadError(
            f"model {name!r}: the MLX backend runs encoders with absolute positions and {', '.join(_ACTIVATIONS)}; "
            f"this one has {places} positions and {activation}. The torch backend runs it: --device cpu, cuda or mps"
        )
    model = Classifier(config) if with_head else Encoder(config)
    weights: dict[str, mx.array] = {}
    for file in sorted(folder.glob("*.safetensors")):
        stored: Any = mx.load(str(file))  # a dict, for safetensors
        weights |= _renamed(stored, with_head=with_head)
    try:
        model.load_weights(list(weights.items()), strict=True)
    except ValueError as error:
        raise ModelLoadError(f"model {name!r}: the weights in {folder} are not those of its config: {error}") from None
    return model


def _renamed(stored: dict[str, mx.array], *, with_head: bool) -> dict[str, mx.array]:
    """From the checkpoint's names to those of the modules above."""
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
