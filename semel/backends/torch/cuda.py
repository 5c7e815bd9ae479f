"""The kernels of `PackedEncoder` for NVIDIA GPUs, and graphs for small batches. Imports torch, so import it late."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention.varlen import varlen_attn
from typing_extensions import override

from semel.backends.torch.packed import Kernels, PackedBatch, PackedEncoder

_GRAPH_TOKENS = (16, 32, 64, 128, 256, 512)
"""The sizes that are captured as graphs. A larger batch keeps the GPU busy for longer than its launches take."""

_GRAPH_TEXTS = 32
"""The most texts of a batch that runs as a graph."""


def packed_encoder(model: Any) -> PackedEncoder:
    """Return an encoder with the weights of a transformers model."""
    return GraphedEncoder(model)


class CudaKernels(Kernels):
    """cuBLAS' linear layers; flash attention for texts of any lengths (torch 2.10 and newer, float16 and bfloat16)."""

    @override
    def linear(self, weight: Tensor, bias: Tensor) -> "_Linear":
        return _Linear(weight, bias)

    @override
    def plan(self, batch: PackedBatch, dtype: torch.dtype) -> PackedBatch:
        return batch

    @override
    def attend(self, inputs: Tensor, plan: PackedBatch) -> Tensor:
        longest = max(plan.lengths)
        return varlen_attn(*inputs.unbind(1), plan.starts, plan.starts, longest, longest).flatten(1)


class _Linear:
    """`nn.Linear`, followed by one more operation."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        self._weight, self._bias = weight.detach(), bias.detach()

    def __call__(self, values: Tensor) -> Tensor:
        return nn.functional.linear(values, self._weight, self._bias)

    def gelu(self, values: Tensor) -> Tensor:
        return nn.functional.gelu(self(values))

    def plus(self, values: Tensor, other: Tensor) -> Tensor:
        return self(values).add_(other)


@dataclass(frozen=True)
class _Graph:
    """A recorded run of the encoder, which reads `batch` and writes `hidden`."""

    graph: torch.cuda.CUDAGraph
    batch: PackedBatch
    hidden: Tensor


class GraphedEncoder(PackedEncoder):
    """An encoder that runs small batches as CUDA graphs: one launch for all layers, where launches took longest."""

    def __init__(self, model: Any) -> None:
        super().__init__(model, CudaKernels())
        self._graphs: dict[int, _Graph] = {}

    @override
    def __call__(self, batch: PackedBatch) -> Tensor:
        tokens, texts = len(batch.ids), len(batch.lengths)
        size = next((size for size in _GRAPH_TOKENS if size >= tokens), None)
        if size is None or texts > _GRAPH_TEXTS or batch.segments is not None:  # graphs know no segments
            return super().__call__(batch)
        graph = self._graph_of(size, batch)
        graph.batch.ids[:tokens].copy_(batch.ids)
        graph.batch.positions[:tokens].copy_(batch.positions)
        graph.batch.starts[: texts + 1].copy_(batch.starts)
        graph.batch.starts[texts + 1 :].fill_(tokens)  # texts of no tokens
        graph.graph.replay()
        return graph.hidden[:tokens]

    def _graph_of(self, size: int, batch: PackedBatch) -> _Graph:
        """The graph for batches of up to `size` tokens; it is recorded when the first one comes."""
        if size not in self._graphs:
            self._graphs[size] = self._record(size, batch)
        return self._graphs[size]

    def _record(self, size: int, batch: PackedBatch) -> _Graph:
        device = batch.ids.device
        # Any numbers that the tables have.
        ids, positions = (given[:1].expand(size).clone() for given in (batch.ids, batch.positions))
        starts = torch.full((_GRAPH_TEXTS + 1,), size, dtype=torch.int32, device=device)
        starts[0] = 0
        static = PackedBatch(ids, positions, starts, lengths=[size])
        aside = torch.cuda.Stream(device)
        aside.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(aside):  # cuBLAS and the allocator prepare themselves, which a graph must not contain
            super().__call__(static)
        torch.cuda.current_stream(device).wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        # Another thread may load a model meanwhile.
        with torch.cuda.graph(graph, stream=aside, capture_error_mode="thread_local"):
            hidden = super().__call__(static)
        return _Graph(graph, static, hidden)
