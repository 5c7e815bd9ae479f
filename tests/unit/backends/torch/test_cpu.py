"""The kernels for CPUs: runs of equal length, attention, memory.

tests/integration/test_packed_encoder.py compares its hidden states with transformers'.
"""

from types import SimpleNamespace

import pytest
import torch

from semel.backends.torch import cpu
from semel.backends.torch.cpu import split


def test_rows_are_split_into_texts_of_each_run() -> None:
    rows = torch.arange(16).reshape(8, 2)
    first, second = split(rows, [(2, 1), (2, 3)])
    assert (tuple(first.shape), tuple(second.shape)) == ((2, 1, 2), (2, 3, 2))
    assert second[1, 0].tolist() == [10, 11]


def test_a_split_is_a_view_that_can_be_written_to() -> None:
    rows = torch.zeros(4, 2)
    split(rows, [(1, 1), (1, 3)])[1][0, 2] = 5
    assert rows[3].tolist() == [5, 5]


@pytest.mark.parametrize("length", [3, 15, 16, 40])
def test_the_softmax_of_short_and_long_rows_sums_to_one(length: int) -> None:
    scores = torch.linspace(-30, 30, 2 * length).reshape(2, length).to(torch.bfloat16)
    shares = cpu._softmax(scores)
    assert shares.dtype == torch.bfloat16
    torch.testing.assert_close(shares.float(), torch.softmax(scores.float(), -1), atol=4e-3, rtol=1e-2)


@pytest.mark.parametrize("length", [5, 200])
def test_attention_equals_that_of_torch_below_and_above_the_fused_kernel(length: int) -> None:
    torch.manual_seed(0)
    inputs = torch.randn(3, length, 3, 2, 8)  # texts, tokens, (query, key, value), heads, size
    out = torch.empty(3, length, 2, 8)
    cpu._attend(inputs, out)
    query, key, value = inputs.permute(2, 0, 3, 1, 4)
    expected = torch.nn.functional.scaled_dot_product_attention(query, key, value).transpose(1, 2)
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-4)


def test_attention_is_the_same_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    inputs = torch.randn(5, 6, 3, 2, 8)
    whole, parts = torch.empty(5, 6, 2, 8), torch.empty(5, 6, 2, 8)
    cpu._attend(inputs, whole)
    monkeypatch.setattr(cpu, "_SCORES", 2 * 2 * 6 * 6)  # two texts at a time
    cpu._attend(inputs, parts)
    torch.testing.assert_close(parts, whole)


def test_a_torch_without_onednn_keeps_its_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    with pytest.raises(RuntimeError, match="this torch has no oneDNN"):
        cpu.packed_encoder(SimpleNamespace())


def test_a_c_library_without_mallopt_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu.ctypes, "CDLL", lambda _: SimpleNamespace())
    cpu.keep_memory()


def test_glibc_is_asked_to_keep_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {}

    def mallopt(name: int, value: int) -> None:
        settings[name] = value

    monkeypatch.setattr(cpu.ctypes, "CDLL", lambda _: SimpleNamespace(mallopt=mallopt))
    cpu.keep_memory()
    assert settings == {-3: 32 << 20, -1: 256 << 20, -2: 16 << 20, -8: 2}
