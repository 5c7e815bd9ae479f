"""Attention on CPUs for texts of any lengths, in few calls of PyTorch's fused kernel. Imports torch, so import it late.

A call for each length would be most of the time of a small batch: 8 sentences of 8 lengths took 1.7 ms in each layer,
and take 0.2 ms now. The texts of a call are padded, in attention alone, to a length at which the kernel is fast.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from typing_extensions import override

from semel.backends.torch.packed import Integers

_STEP = 16
"""The kernel is fastest at multiples of this length; just below one it takes up to twice as long as at it."""

_WORTH_PADDING = 8
"""From this remainder of `_STEP` on, padding costs less than the slower length."""

_FEW_TOKENS = 256
"""A call for fewer tokens takes longer texts along: a call of its own would cost them more than their padding."""


class Group(ABC):
    """The texts that one call of the kernel computes."""

    @abstractmethod
    def attend(self, inputs: Tensor, out: Tensor) -> None:
        """Write softmax(QKᵀ / √size) V of each text to its rows of `out`.

        Args:
            inputs: query, key and value of all tokens of the batch, (tokens, 3, heads, size).
            out: (tokens, heads, size).
        """


@dataclass(frozen=True)
class _Neighbours(Group):
    """Texts of one length, one after the other in rows `start` to `end` of the batch: no copy, and no mask."""

    start: int
    end: int
    length: int

    @override
    def attend(self, inputs: Tensor, out: Tensor) -> None:
        by_head = inputs[self.start : self.end].unflatten(0, (-1, self.length)).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(*by_head)
        out[self.start : self.end].unflatten(0, (-1, self.length)).copy_(mixed.transpose(1, 2))


@dataclass(frozen=True)
class _Padded(Group):
    """Texts of several lengths, padded to one.

    Attributes:
        rows: for each place of the padded texts, a row of the batch, int64 (texts · length,).
        filled: the places that hold a token, int64 (tokens,).
        bias: -∞ at the keys of padding and 0 elsewhere, (texts, 1, length, length).
    """

    rows: Tensor
    filled: Tensor
    bias: Tensor

    @override
    def attend(self, inputs: Tensor, out: Tensor) -> None:
        by_head = inputs.index_select(0, self.rows).unflatten(0, (-1, self.bias.shape[-1])).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(*by_head, attn_mask=self.bias)
        places = mixed.transpose(1, 2).flatten(0, 1)
        out.index_copy_(0, self.rows[self.filled], places.index_select(0, self.filled))


def groups(lengths: Sequence[int], dtype: torch.dtype) -> list[Group]:
    """Divide the texts of a batch into groups.

    Args:
        lengths: the number of tokens of each text; its rows start where those of the text before end.
        dtype: that of the inputs.
    """
    counts = np.asarray(lengths)
    starts = np.cumsum(counts) - counts
    return [_group(counts[texts], starts[texts], dtype) for texts in _divided(counts)]


def _divided(lengths: Integers) -> Iterator[Integers]:
    """The positions of the texts of each group, the shortest texts first."""
    order = np.argsort(lengths, kind="stable")
    begin = 0
    for at in range(1, len(order) + 1):
        if at < len(order):
            padded = _padded(int(lengths[order[at]]))
            if padded == _padded(int(lengths[order[begin]])) or padded * (at - begin + 1) <= _FEW_TOKENS:
                continue
        yield order[begin:at]
        begin = at


def _padded(length: int) -> int:
    return -(-length // _STEP) * _STEP


def _group(lengths: Integers, starts: Integers, dtype: torch.dtype) -> Group:
    longest = int(lengths.max())
    are_neighbours = bool((starts[1:] == starts[:-1] + longest).all()) and bool((lengths == longest).all())
    if are_neighbours and longest > _STEP and longest % _STEP < _WORTH_PADDING:
        return _Neighbours(int(starts[0]), int(starts[-1]) + longest, longest)
    places = np.arange(_padded(longest))
    is_filled = places < lengths[:, None]
    rows = starts[:, None] + np.minimum(places, lengths[:, None] - 1)  # padding repeats the last token
    bias = torch.zeros(is_filled.shape, dtype=dtype).masked_fill_(torch.from_numpy(~is_filled), -torch.inf)
    return _Padded(
        rows=torch.from_numpy(rows.ravel()),
        filled=torch.from_numpy(np.flatnonzero(is_filled)),
        bias=bias[:, None, None, :].expand(-1, 1, len(places), -1),
    )
