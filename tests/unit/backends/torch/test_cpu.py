"""The kernels for CPUs: runs of equal length, memory.

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
