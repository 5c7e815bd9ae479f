"""Attention of texts of any lengths: each text's is that of this text alone, however the texts are grouped."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from semel.backends.torch.attention import _Neighbours, _Padded, groups
from semel.backends.torch.cpu import CpuKernels

HEADS, SIZE = 2, 8


def inputs_for(lengths: list[int], dtype: torch.dtype, more: int = 0) -> torch.Tensor:
    """Query, key and value of all tokens, and rows of other numbers after them."""
    torch.manual_seed(sum(lengths))
    return torch.randn(sum(lengths) + more, 3, HEADS, SIZE).to(dtype)


def of_each_text(inputs: torch.Tensor, lengths: list[int]) -> torch.Tensor:
    texts = []
    for text in inputs[: sum(lengths)].float().split(lengths):
        by_head = text.permute(1, 2, 0, 3)
        texts.append(torch.nn.functional.scaled_dot_product_attention(*by_head).transpose(0, 1))
    return torch.cat(texts)


def attended(inputs: torch.Tensor, lengths: list[int]) -> torch.Tensor:
    return CpuKernels().attend(inputs, groups(lengths, inputs.dtype)).unflatten(1, (HEADS, SIZE))


LENGTHS = [
    [1], [16], [17], [40], [3] * 5, [20] * 4, [32] * 3, [200, 200], [1, 200], [40, 3, 17, 16, 3, 200, 15],
    [17] * 20, [24] * 20, [17, 18, 17, 18] * 6, list(range(1, 60)),
]  # fmt: skip


@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.03)])
def test_each_text_attends_to_itself_alone(lengths: list[int], dtype: torch.dtype, tolerance: float) -> None:
    inputs = inputs_for(lengths, dtype)
    torch.testing.assert_close(
        attended(inputs, lengths).float(), of_each_text(inputs, lengths), atol=tolerance, rtol=tolerance
    )


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 70), min_size=1, max_size=40))
def test_texts_of_any_lengths_in_any_order(lengths: list[int]) -> None:
    inputs = inputs_for(lengths, torch.float32)
    torch.testing.assert_close(attended(inputs, lengths), of_each_text(inputs, lengths), atol=1e-5, rtol=1e-4)


def test_rows_after_the_texts_are_zeros_and_change_nothing() -> None:
    lengths = [5, 20, 20]
    inputs = inputs_for(lengths, torch.float32, more=7)
    inputs[45:] = torch.nan
    found = attended(inputs, lengths)
    torch.testing.assert_close(found[:45], of_each_text(inputs, lengths), atol=1e-5, rtol=1e-4)
    assert (found[45:] == 0).all()


def test_neighbours_of_a_good_length_are_not_copied() -> None:
    (group,) = groups([33] * 9, torch.float32)
    assert isinstance(group, _Neighbours)
    assert (group.start, group.end, group.length) == (0, 297, 33)


def test_texts_of_one_length_that_are_apart_are_gathered() -> None:
    first, second = groups([20] * 15 + [304] + [20] * 15, torch.float32)
    assert isinstance(first, _Padded)
    assert isinstance(second, _Neighbours)


def test_few_texts_make_one_call_and_many_texts_one_for_each_length_of_padding() -> None:
    assert len(groups([3, 30, 9, 17], torch.float32)) == 1
    many = groups([10, 14] * 30 + [20, 27] * 30 + [40] * 30, torch.float32)
    assert [group.bias.shape[-1] for group in many if isinstance(group, _Padded)] == [16, 32, 48]
