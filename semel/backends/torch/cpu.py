"""The kernels of `PackedEncoder` for CPUs. Imports torch, so import it late.

The gain was measured on two AVX-512 cores (benchmarks/bench_cold.py), where matrix products were three quarters of a
batch before; the rest can be saved:

- Attention pads texts of similar lengths, and nothing else does; see `attention.py`.
- Linear layers keep their weights in oneDNN's layout; GELU and the residual sum happen in the same pass. PyTorch's
  compiler also does this when it freezes a graph, but it needs a C++ compiler on the user's machine.
- The allocator keeps its memory between batches: fresh pages took up to a sixth of a batch.
"""

import ctypes
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from semel.backends.torch.attention import Group, groups
from semel.backends.torch.packed import Kernels, PackedBatch, PackedEncoder, Run

_LEAST_ROWS = 16
"""A matrix of fewer rows takes as long."""

_FEW_RUNS = 4
"""Up to so many runs of equal length are pooled one after the other, without a copy."""


def keep_memory() -> None:
    """Let glibc keep the memory that a batch frees for the next one; does nothing with other C libraries."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 32 << 20)  # the most that glibc accepts
        mallopt(_M_TRIM_THRESHOLD, 256 << 20)
        mallopt(_M_TOP_PAD, 16 << 20)
        mallopt(_M_ARENA_MAX, 2)  # each thread's own heap would keep what it once needed


_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -2, -3, -8  # malloc.h


def packed_encoder(model: Any) -> PackedEncoder:
    """Return an encoder with the weights of a transformers model. Raises RuntimeError if this torch has no oneDNN."""
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        raise RuntimeError("this torch has no oneDNN")
    return PackedEncoder(model, CpuKernels())


class CpuKernels(Kernels):
    """oneDNN's linear layers; attention for groups of texts."""

    @override
    def linear(self, weight: Tensor, bias: Tensor) -> "_Linear":
        return _Linear(weight, bias)

    @override
    def plan(self, batch: PackedBatch, dtype: torch.dtype) -> list[Group]:
        return groups(batch.lengths, dtype)

    @override
    def attend(self, inputs: Tensor, plan: Sequence[Group]) -> Tensor:
        mixed = inputs.new_zeros(inputs.shape[0], *inputs.shape[2:])  # zeros in the rows that `padded` added
        for group in plan:
            group.attend(inputs, mixed)
        return mixed.flatten(1)

    @override
    def padded(self, rows: Tensor) -> Tensor:
        return nn.functional.pad(rows, (0, 0, 0, size_for(len(rows)) - len(rows)))

    @override
    def texts(self, rows: Tensor, batch: PackedBatch) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        if len(batch.runs) > _FEW_RUNS:
            yield from super().texts(rows, batch)
            return
        for part, ids in zip(split(rows, batch.runs), split(batch.ids, batch.runs), strict=True):
            yield part, ids, torch.ones_like(ids)


class _Linear:
    """`nn.Linear` with weights in oneDNN's layout."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous(), None)
        self._bias = bias.detach()

    def __call__(self, values: Tensor) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(values, self._weight, self._bias, "none", [], "")

    def gelu(self, values: Tensor) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(values, self._weight, self._bias, "gelu", [], "none")

    def plus(self, values: Tensor, other: Tensor) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise.binary(values, other, self._weight, self._bias, "add")


def size_for(tokens: int) -> int:
    """The number of rows that a matrix of so many tokens gets: one of eight between two powers of two.

    oneDNN compiles a kernel for every number of rows, and keeps it. Rows of zeros, 6 % of them on average, cost less
    than new kernels do.
    """
    step = _LEAST_ROWS
    while tokens > 8 * step:
        step *= 2
    return -(-tokens // step) * step


def split(rows: Tensor, runs: Sequence[Run]) -> list[Tensor]:
    """Return views (texts, tokens, …) of rows (all tokens, …), one for each run."""
    parts = rows.split([texts * length for texts, length in runs])
    return [part.unflatten(0, run) for part, run in zip(parts, runs, strict=True)]
