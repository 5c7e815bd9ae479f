"""A BERT-class encoder for CPUs in bfloat16, without padding. Imports torch, so import it late.

It has the same layers and weights as in transformers, run in another order. The gain was measured on two AVX-512
cores (benchmarks/bench_cold.py), where matrix products were three quarters of a batch before; the rest can be saved:

- The tokens of all texts are in one (tokens, hidden) matrix; only attention looks at single texts, a run of equal
  lengths at a time. No padding is computed and no mask is needed.
- Linear layers keep their weights in oneDNN's layout; GELU and the residual sum happen in the same pass. PyTorch's
  compiler also does this when it freezes a graph, but it needs a C++ compiler on the user's machine.
- Attention is two batched products with the softmax in float32; PyTorch's fused kernel is slower below 192 tokens.
- The allocator keeps its memory between batches: fresh pages took up to a sixth of a batch.

`rebuild` compares the vectors of both encoders, and keeps that of transformers if they do not agree.
"""

import ctypes
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

from semel.backends.base import Tokens

_MODEL_TYPES = {"bert", "roberta", "xlm-roberta", "camembert"}
"""Encoders whose attention is bidirectional and whose layers are attention, norm, Linear, GELU, Linear, norm."""

_LONG = 192
"""From this many tokens on, PyTorch's fused attention is faster."""

_SCORES = 1 << 20
"""Attention scores computed at a time, 4 MiB in float32: more do not fit into the caches."""

_VECTOR = 16
"""float32 numbers in an AVX-512 register; PyTorch's softmax leaves it unused on shorter rows."""

_MIN_COSINE = 0.999
"""The lowest cosine that is accepted between the vectors of both encoders."""

Run = tuple[int, int]
"""(number of texts, tokens of each): neighbours of equal length."""


def rebuild(model: Any, compare: Callable[["PackedEncoder"], float]) -> tuple["PackedEncoder | None", str]:
    """Return the encoder that replaces a model's own, or None; and the reason.

    Args:
        model: a transformers model in bfloat16 on the CPU.
        compare: returns the lowest cosine between the vectors of the model and of an encoder.
    """
    config = model.config
    if config.model_type not in _MODEL_TYPES or config.is_decoder or config.hidden_act != "gelu":
        return None, f"plain layers: {config.model_type} is not among {', '.join(sorted(_MODEL_TYPES))} with GELU"
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return None, "plain layers: this torch has no oneDNN"
    try:
        encoder = PackedEncoder(model)
        agree = compare(encoder)
    except (RuntimeError, TypeError, AttributeError) as error:  # another torch, or layers with other parts
        return None, f"plain layers: packed ones do not run here ({error})"
    if not agree >= _MIN_COSINE:
        return None, f"plain layers: packed ones agree only to cosine {agree:.4f}"
    return encoder, "packed layers, no padding"


def keep_memory() -> None:
    """Let glibc keep the memory that a batch frees for the next one; does nothing with other C libraries."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 32 << 20)  # the most that glibc accepts
        mallopt(_M_TRIM_THRESHOLD, 256 << 20)
        mallopt(_M_TOP_PAD, 16 << 20)


_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3  # malloc.h


def runs_of(batch: Sequence[Tokens]) -> list[Run]:
    """Return the runs of equal length in a batch, in order."""
    return [(len(list(texts)), length) for length, texts in groupby(batch, key=lambda tokens: len(tokens.ids))]


class PackedEncoder:
    """The layers of a transformers BERT-class model; the embedding tables are shared with it."""

    def __init__(self, model: Any) -> None:
        config, embeddings = model.config, model.embeddings
        self._heads: int = config.num_attention_heads
        self._words, self._norm = embeddings.word_embeddings, embeddings.LayerNorm
        self._kind = embeddings.token_type_embeddings.weight[0]
        self._places = embeddings.position_embeddings
        # RoBERTa's first position is the padding id plus one, and padding ids in a text have none; BERT counts from 0.
        self._pad_id: int | None = None if config.model_type == "bert" else config.pad_token_id
        self._layers = [_Layer(layer) for layer in model.encoder.layer]

    def __call__(self, ids: Tensor, runs: Sequence[Run]) -> Tensor:
        """Return the hidden states of the last layer, bfloat16 (tokens, hidden).

        Args:
            ids: int64 (tokens,), one text after the other.
            runs: the lengths of the texts.
        """
        hidden = self._norm(self._words(ids) + self._places(self._positions(ids, runs)) + self._kind)
        for layer in self._layers:
            hidden = layer(hidden, runs, self._heads)
        return hidden

    def _positions(self, ids: Tensor, runs: Sequence[Run]) -> Tensor:
        positions = []
        for texts, (count, length) in zip(split(ids, runs), runs, strict=True):
            if self._pad_id is None:
                positions.append(torch.arange(length).repeat(count))
            else:
                counted = texts.ne(self._pad_id).long()
                positions.append((counted.cumsum(1) * counted + self._pad_id).flatten())
        return torch.cat(positions)


def split(rows: Tensor, runs: Sequence[Run]) -> list[Tensor]:
    """Return views (texts, tokens, …) of rows (all tokens, …), one for each run."""
    parts = rows.split([texts * length for texts, length in runs])
    return [part.unflatten(0, run) for part, run in zip(parts, runs, strict=True)]


class _Linear:
    """`nn.Linear` with weights in oneDNN's layout, fused with the operation that follows it."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous(), None)
        self._bias = None if bias is None else bias.detach()

    def __call__(self, values: Tensor, activation: str = "none") -> Tensor:
        algorithm = "none" if activation == "gelu" else ""  # the exact GELU, not the tanh one
        return torch.ops.mkldnn._linear_pointwise(values, self._weight, self._bias, activation, [], algorithm)

    def plus(self, values: Tensor, other: Tensor) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise.binary(values, other, self._weight, self._bias, "add")


class _Layer:
    """Attention and feed-forward, each with its residual sum and norm."""

    def __init__(self, layer: Any) -> None:
        attention = layer.attention.self
        inputs: list[nn.Linear] = [attention.query, attention.key, attention.value]
        self._inputs = _Linear(torch.cat([i.weight for i in inputs]), torch.cat([i.bias for i in inputs]))
        self._mixed = _Linear(layer.attention.output.dense.weight, layer.attention.output.dense.bias)
        self._mixed_norm = layer.attention.output.LayerNorm
        self._up = _Linear(layer.intermediate.dense.weight, layer.intermediate.dense.bias)
        self._down = _Linear(layer.output.dense.weight, layer.output.dense.bias)
        self._down_norm = layer.output.LayerNorm

    def __call__(self, hidden: Tensor, runs: Sequence[Run], heads: int) -> Tensor:
        inputs = self._inputs(hidden).unflatten(1, (3, heads, -1))
        mixed = torch.empty_like(hidden)
        for texts, out in zip(split(inputs, runs), split(mixed.unflatten(1, (heads, -1)), runs), strict=True):
            _attend(texts, out)
        hidden = self._mixed_norm(self._mixed.plus(mixed, hidden))
        return self._down_norm(self._down.plus(self._up(hidden, "gelu"), hidden))


def _attend(inputs: Tensor, out: Tensor) -> None:
    """Write softmax(QKᵀ / √size) V to `out` (texts, tokens, heads, size); inputs: (texts, tokens, 3, heads, size)."""
    texts, length, _, heads, size = inputs.shape
    by_head = inputs.permute(2, 0, 3, 1, 4)  # 3, texts, heads, tokens, size
    if length >= _LONG:
        out.copy_(nn.functional.scaled_dot_product_attention(*by_head).transpose(1, 2))
        return
    step = max(1, _SCORES // (heads * length * length))
    for at in range(0, texts, step):
        block = by_head[:, at : at + step]
        count = block.shape[1]
        query = (block[0] * size**-0.5).reshape(count * heads, length, size)
        key, value = block[1].reshape(query.shape), block[2].reshape(query.shape)
        mixed = torch.bmm(_softmax(torch.bmm(query, key.transpose(1, 2))), value)
        out[at : at + step] = mixed.unflatten(0, (count, heads)).transpose(1, 2)


def _softmax(scores: Tensor) -> Tensor:
    """Softmax over the last dimension, computed in float32."""
    if scores.shape[-1] >= _VECTOR:
        return torch.softmax(scores, -1, dtype=torch.float32).to(scores.dtype)
    # On short rows PyTorch's softmax takes one number at a time, which is five times as slow.
    shares = scores.float()
    shares -= shares.amax(-1, keepdim=True)
    shares.exp_()
    shares /= shares.sum(-1, keepdim=True)
    return shares.to(scores.dtype)
