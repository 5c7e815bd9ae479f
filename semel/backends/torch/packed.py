"""A BERT-class encoder that computes no padding, with the kernels of one device. Imports torch, so import it late.

It has the same layers and weights as in transformers, run in another order: the tokens of all texts of a batch are in
one (tokens, hidden) matrix, and only attention and pooling look at single texts. `cpu.py` and `cuda.py` have the
kernels.

`rebuild` compares the vectors of both encoders, and keeps that of transformers if they do not agree.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from itertools import groupby
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from semel.backends.base import Tokens
from semel.backends.models.layout import BERT_CLASS

_MIN_COSINE = 0.999
"""The lowest cosine that is accepted between the vectors of both encoders."""

Run = tuple[int, int]
"""(number of texts, tokens of each): neighbours of equal length."""

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class PackedBatch:
    """The tokens of some texts, one text after the other, on the encoder's device.

    Attributes:
        ids: int64 (tokens,).
        positions: the number of each token's position embedding, int64 (tokens,).
        starts: where each text starts, and the end of the last one; int32 (texts + 1,).
        lengths: the number of tokens of each text.
        segments: which part of its pair each token belongs to, int64 (tokens,); None if no text has parts.
    """

    ids: Tensor
    positions: Tensor
    starts: Tensor
    lengths: Sequence[int]
    segments: Tensor | None = None

    @cached_property
    def runs(self) -> list[Run]:
        """The runs of equal length, in order."""
        return [(len(list(equal)), length) for length, equal in groupby(self.lengths)]


class Linear(Protocol):
    """The kernels of one `nn.Linear`, each fused with the operation after it where the device can do that."""

    def __call__(self, values: Tensor) -> Tensor:
        """Return values · weightᵀ + bias."""

    def gelu(self, values: Tensor) -> Tensor:
        """Return GELU(values · weightᵀ + bias): the exact one, not the one with tanh."""

    def plus(self, values: Tensor, other: Tensor) -> Tensor:
        """Return values · weightᵀ + bias + other."""


class Kernels(ABC):
    """What the encoder computes differently on each kind of device."""

    @abstractmethod
    def linear(self, weight: Tensor, bias: Tensor) -> Linear:
        """Prepare an `nn.Linear`."""

    @abstractmethod
    def plan(self, batch: PackedBatch, dtype: torch.dtype) -> Any:
        """Return what `attend` needs to know of a batch, the same for all layers.

        Args:
            dtype: that of the inputs.
        """

    @abstractmethod
    def attend(self, inputs: Tensor, plan: Any) -> Tensor:
        """Return softmax(QKᵀ / √size) V within each text, (tokens, heads · size).

        Args:
            inputs: query, key and value, (tokens, 3, heads, size).
            plan: what `plan` returned for this batch.
        """

    def padded(self, rows: Tensor) -> Tensor:
        """Return rows (tokens, hidden), with more rows of zeros where the device computes some sizes better.

        Every layer works on each row alone, and `attend` receives all rows.
        """
        return rows

    def texts(self, rows: Tensor, batch: PackedBatch) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield the texts for pooling, in order: (rows, ids, mask), each (texts, longest of them, …).

        Here all of them at once, padded: a run at a time would take as many calls as there are lengths.

        Args:
            rows: one for each token, (tokens, …).
        """
        places = torch.arange(max(batch.lengths), device=rows.device)
        mask = places < batch.starts.diff()[:, None]
        index = (batch.starts[:-1, None] + places).clamp_(max=len(rows) - 1)
        yield torch.where(mask[..., None], rows[index], 0), batch.ids[index], mask.long()


class PackedEncoder:
    """The layers of a transformers BERT-class model; the embedding tables are shared with it."""

    def __init__(self, model: Any, kernels: Kernels) -> None:
        config, embeddings = model.config, model.embeddings
        self.kernels = kernels
        self._heads: int = config.num_attention_heads
        self._words, self._norm = embeddings.word_embeddings, embeddings.LayerNorm
        self._parts = embeddings.token_type_embeddings.weight
        self._places = embeddings.position_embeddings
        # RoBERTa's first position is the padding id plus one, and padding ids in a text have none; BERT counts from 0.
        self._pad_id: int | None = None if config.model_type == "bert" else config.pad_token_id
        self._layers = [_Layer(layer, kernels) for layer in model.encoder.layer]

    def pack(self, batch: Sequence[Tokens], move: Callable[[Tensor], Tensor]) -> PackedBatch:
        """Return the tokens of some texts as the encoder reads them.

        Args:
            batch: texts of equal length should be side by side: `runs` are computed one after the other on CPUs.
            move: copies a tensor to the encoder's device.
        """
        lengths = [len(tokens.ids) for tokens in batch]
        starts = np.zeros(len(lengths) + 1, np.int64)
        np.cumsum(lengths, out=starts[1:])
        ids = _joined([tokens.ids for tokens in batch])
        positions = _positions(ids, starts, self._pad_id)
        return PackedBatch(
            ids=move(torch.from_numpy(ids)),
            positions=move(torch.from_numpy(positions)),
            starts=move(torch.from_numpy(starts.astype(np.int32))),
            lengths=lengths,
            segments=_segments(batch, move) if any(tokens.segments for tokens in batch) else None,
        )

    def __call__(self, batch: PackedBatch) -> Tensor:
        """Return the hidden states of the last layer, (tokens, hidden) in the dtype of the weights."""
        parts = self._parts[0] if batch.segments is None else self._parts[batch.segments]
        hidden = self._norm(self._words(batch.ids) + self._places(batch.positions) + parts)
        tokens, plan = len(hidden), self.kernels.plan(batch, hidden.dtype)
        hidden = self.kernels.padded(hidden)
        for layer in self._layers:
            hidden = layer(hidden, plan, self._heads)
        return hidden[:tokens]


def _segments(batch: Sequence[Tokens], move: Callable[[Tensor], Tensor]) -> Tensor:
    """The part of its pair for each token; a text that has none is the first part."""
    return move(torch.tensor([part for tokens in batch for part in tokens.segments or [0] * len(tokens.ids)]))


def _joined(parts: Sequence[Sequence[int]]) -> Integers:
    """The ids of all texts, one text after the other."""
    if all(isinstance(part, memoryview) for part in parts):  # int32, from `TokenizerProcesses`
        return np.frombuffer(b"".join(parts), np.int32).astype(np.int64)  # type: ignore[arg-type]
    return np.concatenate([np.asarray(part, np.int64) for part in parts])


def _positions(ids: Integers, starts: Integers, pad_id: int | None) -> Integers:
    lengths = np.diff(starts)
    if pad_id is None:
        return np.asarray(np.arange(len(ids)) - np.repeat(starts[:-1], lengths))
    counted = ids != pad_id
    up_to = np.concatenate([[0], np.cumsum(counted)])
    return np.asarray((up_to[1:] - np.repeat(up_to[starts[:-1]], lengths)) * counted + pad_id)


class _Layer:
    """Attention and feed-forward, each with its residual sum and norm."""

    def __init__(self, layer: Any, kernels: Kernels) -> None:
        attention = layer.attention.self
        inputs: list[nn.Linear] = [attention.query, attention.key, attention.value]
        self._attend = kernels.attend
        self._inputs = kernels.linear(torch.cat([i.weight for i in inputs]), torch.cat([i.bias for i in inputs]))
        self._mixed = kernels.linear(layer.attention.output.dense.weight, layer.attention.output.dense.bias)
        self._mixed_norm = layer.attention.output.LayerNorm
        self._up = kernels.linear(layer.intermediate.dense.weight, layer.intermediate.dense.bias)
        self._down = kernels.linear(layer.output.dense.weight, layer.output.dense.bias)
        self._down_norm = layer.output.LayerNorm

    def __call__(self, hidden: Tensor, plan: Any, heads: int) -> Tensor:
        mixed = self._attend(self._inputs(hidden).unflatten(1, (3, heads, -1)), plan)
        hidden = self._mixed_norm(self._mixed.plus(mixed, hidden))
        return self._down_norm(self._down.plus(self._up.gelu(hidden), hidden))


def rebuild(
    model: Any, make: Callable[[Any], PackedEncoder], compare: Callable[[PackedEncoder], float]
) -> tuple[PackedEncoder | None, str]:
    """Return the encoder that replaces a model's own, or None; and the reason.

    Args:
        model: a transformers model.
        make: makes its encoder for one kind of device.
        compare: returns how far the vectors of the model and of an encoder agree: their lowest cosine, or 1 less the
            largest difference of two scores, as a share of the largest score above 1.
    """
    config = model.config
    if config.model_type not in BERT_CLASS or config.is_decoder or config.hidden_act != "gelu":
        return None, f"plain layers: {config.model_type} is not among {', '.join(sorted(BERT_CLASS))} with GELU"
    try:
        encoder = make(model)
        agree = compare(encoder)
    except (ImportError, RuntimeError, TypeError, AttributeError) as error:  # another torch, or layers with other parts
        return None, f"plain layers: packed ones do not run here ({error})"
    if not agree >= _MIN_COSINE:
        return None, f"plain layers: packed ones agree only to {agree:.4f}"
    return encoder, "packed layers, no padding"


def on_device(kind: str, model: Any) -> PackedEncoder:
    """The encoder of a transformers model with the kernels of a kind of device, `cpu` or `cuda`."""
    kernels = import_module(f"semel.backends.torch.{kind}")
    encoder: PackedEncoder = kernels.packed_encoder(model)
    return encoder


def first_token_head(model: Any) -> Callable[[Tensor], Tensor]:
    """What a transformers classifier does with the hidden states of each text's first token, (texts, hidden).

    Raises TypeError where its head is not one of those that read the first token alone.
    """
    kind = model.config.model_type
    if kind == "bert":
        return lambda first: model.classifier(model.bert.pooler(first[:, None]))
    if kind in BERT_CLASS:  # those of RoBERTa's kind
        head: Callable[[Tensor], Tensor] = model.classifier
        return lambda first: head(first[:, None])
    raise TypeError(f"the head of {kind} is not known")
