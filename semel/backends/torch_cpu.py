"""What makes a BERT-class encoder fast on a CPU in bfloat16. Imports torch; load it late.

Two changes, both measured on two AVX-512 cores (benchmarks/bench_cold.py), neither changes what is computed:

- Linear layers keep their weights in oneDNN's own layout and apply GELU in the same pass (12 % and 7 % of a batch).
  PyTorch's compiler does the same when it freezes a graph, but needs a C++ compiler on the user's machine.
- Attention over short texts works on blocks whose scores fit into the L2 cache, with the softmax in float32 (4 % of
  a batch); from 64 tokens on PyTorch's own is as fast.

`speed_up` compares before and after, and takes back what does not agree.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import sdpa_mask

ATTENTION = "semel_cpu"

_MODEL_TYPES = {"bert", "roberta", "xlm-roberta", "camembert"}
"""Encoders whose attention is bidirectional and whose feed-forward part is Linear, GELU, Linear."""

_SCORES_BYTES = 512 << 10
"""Scores of one block; an L2 cache of today holds 1 to 2 MiB, and the block's other operands want room too."""

_SHORT_TOKENS = 64

_AGREE = 0.999
"""Cosine of each output vector before and after, at the least."""


class PackedLinear(nn.Module):
    """`nn.Linear` with the weights in oneDNN's layout, and optionally GELU behind it.

    Args:
        linear: bfloat16.
        activation: `none` or `gelu` (the exact one).
    """

    def __init__(self, linear: nn.Linear, activation: str = "none") -> None:
        super().__init__()
        self._weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach().contiguous(), None)
        self._bias = None if linear.bias is None else linear.bias.detach()
        self._activation = activation

    def forward(self, values: Tensor) -> Tensor:
        algorithm = "none" if self._activation == "gelu" else ""
        return torch.ops.mkldnn._linear_pointwise(values, self._weight, self._bias, self._activation, [], algorithm)


def short_attention(
    module: nn.Module,  # noqa: ARG001  # the signature of transformers' AttentionInterface
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """softmax(QKᵀ·scaling)V for (batch, heads, length, size); returns (batch, length, heads, size)."""
    batch, heads, length, size = query.shape
    if length >= _SHORT_TOKENS:
        mixed = torch.nn.functional.scaled_dot_product_attention(query, key, value, attention_mask, scale=scaling)
        return mixed.transpose(1, 2), None
    step = max(1, _SCORES_BYTES // (heads * length * length * query.element_size()))
    scaled, keys = query * (scaling or size**-0.5), key.transpose(2, 3)
    # Padding hides the same keys from every query: one row of the mask says it all.
    hidden = None if attention_mask is None else ~attention_mask[:, :, :1, :]
    blocks = []
    for at in range(0, batch, step):
        scores = torch.matmul(scaled[at : at + step], keys[at : at + step])
        if hidden is not None:
            scores.masked_fill_(hidden[at : at + step], torch.finfo(scores.dtype).min)
        shares = torch.softmax(scores, -1, dtype=torch.float32).to(query.dtype)
        blocks.append(torch.matmul(shares, value[at : at + step]).transpose(1, 2))
    return (blocks[0] if len(blocks) == 1 else torch.cat(blocks)), None


def speed_up(model: Any, run: Callable[[], Tensor]) -> str:
    """Rebuild an encoder in place, and say what was done.

    Args:
        model: a transformers model in bfloat16 on the CPU.
        run: gives vectors (n, dim) for texts of different lengths, padding among them.
    """
    if model.config.model_type not in _MODEL_TYPES or getattr(model.config, "is_decoder", False):
        return f"plain layers: {model.config.model_type} is not among {', '.join(sorted(_MODEL_TYPES))}"
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return "plain layers: this torch has no oneDNN"
    before = run()
    attention = model.config._attn_implementation
    AttentionInterface.register(ATTENTION, short_attention)
    AttentionMaskInterface.register(ATTENTION, sdpa_mask)
    model.set_attn_implementation(ATTENTION)
    undo = _pack(model)
    agree = torch.nn.functional.cosine_similarity(before, run()).min().item()
    if agree >= _AGREE:
        return "packed layers, attention in blocks for short texts"
    for parent, name, layer in undo:
        setattr(parent, name, layer)
    model.set_attn_implementation(attention)
    return f"plain layers: packed ones agree only to cosine {agree:.4f}"


def _pack(model: nn.Module) -> list[tuple[nn.Module, str, nn.Module]]:
    """Replace the linear layers; returns (parent, name, what was there)."""
    replaced = []
    for parent in list(model.modules()):
        fused = isinstance(getattr(parent, "dense", None), nn.Linear) and _is_gelu(parent)
        for name, layer in list(parent.named_children()):
            if isinstance(layer, nn.Linear):
                replaced.append((parent, name, layer))
                setattr(parent, name, PackedLinear(layer, "gelu" if fused and name == "dense" else "none"))
        if fused:
            replaced.append((parent, "intermediate_act_fn", parent.intermediate_act_fn))
            parent.intermediate_act_fn = nn.Identity()
    return replaced


def _is_gelu(module: nn.Module) -> bool:
    """The exact GELU behind a layer called `dense`, as BERT's feed-forward part has it."""
    return type(getattr(module, "intermediate_act_fn", None)).__name__ == "GELUActivation"
