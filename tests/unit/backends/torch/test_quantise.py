"""Which layers are quantised and how, with a stand-in for bitsandbytes; tests/integration/test_quantised.py has it."""

import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from semel.backends.torch.quantise import Int8Linear, quantise
from semel.errors import ModelLoadError
from semel.values.model import Precision


def int8_vectorwise_quant(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
    highest = weight.float().abs().amax(dim=1)
    return (weight.float() / highest[:, None] * 127).round().to(torch.int8), highest, None


class Linear4bit(nn.Module):
    """Records its arguments."""

    def __init__(self, inner: int, outer: int, **options: Any) -> None:
        super().__init__()
        self.sizes, self.options = (inner, outer), options
        self.support_avx512bf16_for_cpu = True
        self.weight = self.bias = None

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return values


class Params4bit(nn.Parameter):
    """Keeps the weights as they are."""

    def __new__(cls, data: torch.Tensor, **_: object) -> "Params4bit":
        return torch.Tensor._make_subclass(cls, data, False)


@pytest.fixture
def bnb(monkeypatch: pytest.MonkeyPatch) -> Any:
    stand_in = SimpleNamespace(
        __version__="0.50",
        functional=SimpleNamespace(int8_vectorwise_quant=int8_vectorwise_quant),
        nn=SimpleNamespace(Linear4bit=Linear4bit, Params4bit=Params4bit),
    )
    monkeypatch.setitem(sys.modules, "bitsandbytes", stand_in)
    return stand_in


class Special(nn.Linear):
    """A layer with another meaning."""


def module() -> nn.Module:
    torch.manual_seed(0)
    block = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8, bias=False))
    return nn.ModuleDict({"words": nn.Embedding(5, 8), "block": block, "norm": nn.LayerNorm(8), "gate": Special(8, 8)})


@pytest.mark.parametrize("precision", [Precision.INT8, Precision.INT4])
def test_every_linear_layer_is_replaced_and_nothing_else(bnb: Any, precision: Precision) -> None:
    made = module()
    done = quantise("m", made, precision, "cpu")
    assert done == f"{precision} weights in 2 layers by bitsandbytes 0.50"
    kind = Int8Linear if precision is Precision.INT8 else Linear4bit
    assert [type(layer) for layer in made["block"]] == [kind, nn.GELU, kind]  # type: ignore[index]
    assert [type(made[name]) for name in ("words", "norm", "gate")] == [nn.Embedding, nn.LayerNorm, Special]  # type: ignore[index]


def test_int8_weights_give_nearly_the_same_numbers(bnb: Any) -> None:
    layer = nn.Linear(64, 32)
    values = torch.randn(10, 64)
    quantised = Int8Linear(bnb, layer)
    assert (quantised.codes.dtype, tuple(quantised.scales.shape)) == (torch.int8, (32, 1))
    torch.testing.assert_close(quantised(values), layer(values), atol=0.05, rtol=0)
    assert not torch.equal(quantised(values), layer(values))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_product_is_computed_in_the_dtype_of_the_model(bnb: Any, dtype: torch.dtype) -> None:
    layer = nn.Linear(64, 32, dtype=dtype)
    assert Int8Linear(bnb, layer)(torch.randn(3, 64, dtype=dtype)).dtype is dtype


def test_each_output_row_has_its_own_scale(bnb: Any) -> None:
    layer = nn.Linear(4, 2, bias=False)
    layer.weight.data = torch.tensor([[100.0, -50.0, 0.0, 25.0], [0.01, 0.02, -0.04, 0.0]])
    quantised = Int8Linear(bnb, layer)
    torch.testing.assert_close(quantised(torch.eye(4)).T, layer.weight.data, atol=0, rtol=0.02)


def test_int4_is_nf4_in_blocks_without_repacking(bnb: Any) -> None:
    made = module()
    quantise("m", made, Precision.INT4, "cpu")
    first, _, last = made["block"]  # type: ignore[index]
    assert first.sizes == (8, 16)
    assert (first.options["quant_type"], first.options["compress_statistics"]) == ("nf4", False)
    assert (first.options["bias"], last.options["bias"]) == (True, False)
    assert not first.support_avx512bf16_for_cpu
    assert last.bias is None


def test_without_the_library_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    made = module()
    with pytest.raises(ModelLoadError, match=r"precision int8 needs bitsandbytes: pip install 'semel\[quantised\]'"):
        quantise("m", made, Precision.INT8, "cpu")
    assert type(made["block"][0]) is nn.Linear  # type: ignore[index]
