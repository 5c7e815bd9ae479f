"""The dtype that a torch device computes in, with a stand-in for torch and its speed."""

from types import SimpleNamespace
from typing import Any

import pytest

from semel.backends.torch import dtype as dtype_module
from semel.backends.torch.dtype import choose_dtype


class Torch:
    """A torch whose matrix products take a given time in each dtype."""

    float32, bfloat16, float16 = "float32", "bfloat16", "float16"

    def __init__(self, *, gpu_has_bfloat16: bool = False, bfloat16_s: float = 1.0) -> None:
        self.cuda = SimpleNamespace(is_bf16_supported=lambda *, including_emulation: gpu_has_bfloat16)
        self.nn = SimpleNamespace(functional=SimpleNamespace(linear=self._linear))
        self.products: list[str] = []
        self.now = 0.0
        self._seconds = {self.float32: 1.0, self.bfloat16: bfloat16_s}

    def randn(self, *_: int) -> Any:
        return SimpleNamespace(to=lambda dtype: dtype)

    def _linear(self, left: str, right: str) -> None:
        assert left == right
        self.products.append(left)
        load = 9.0 if len(self.products) < 15 else 0.0  # the machine is busy at first
        self.now += self._seconds[left] + load

    def perf_counter(self) -> float:
        return self.now


def chosen(torch: Torch, kind: str, monkeypatch: pytest.MonkeyPatch, *, wants_full: bool = False) -> tuple[Any, str]:
    monkeypatch.setattr(dtype_module, "time", torch)
    return choose_dtype(torch, kind, wants_full=wants_full)


@pytest.mark.parametrize("kind", ["cpu", "cuda", "mps"])
def test_an_entry_that_asks_for_float32_gets_it(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = Torch(gpu_has_bfloat16=True, bfloat16_s=0.1)
    assert chosen(torch, kind, monkeypatch, wants_full=True) == ("float32", "float32: the model's entry asks for it")
    assert torch.products == []


@pytest.mark.parametrize(
    ("gpu_has_bfloat16", "expected"),
    [
        (True, ("bfloat16", "bfloat16: this GPU computes in it")),
        (False, ("float16", "float16: this GPU has no bfloat16")),
    ],
)
def test_a_gpu_computes_in_the_half_type_that_it_has(
    gpu_has_bfloat16: bool, expected: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert chosen(Torch(gpu_has_bfloat16=gpu_has_bfloat16), "cuda", monkeypatch) == expected


def test_mps_computes_in_float16(monkeypatch: pytest.MonkeyPatch) -> None:
    assert chosen(Torch(), "mps", monkeypatch) == ("float16", "float16: the fastest type on MPS")


@pytest.mark.parametrize(
    ("bfloat16_s", "expected"),
    [
        (0.5, ("bfloat16", "bfloat16: a matrix product takes 1/2.0 of float32's time here")),
        (1 / 1.31, ("bfloat16", "bfloat16: a matrix product takes 1/1.3 of float32's time here")),
        (1 / 1.29, ("float32", "float32: bfloat16 would run at 1.3 times its speed here")),
        (2.0, ("float32", "float32: bfloat16 would run at 0.5 times its speed here")),
    ],
)
def test_a_cpu_takes_bfloat16_only_if_it_is_clearly_faster(
    bfloat16_s: float, expected: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert chosen(Torch(bfloat16_s=bfloat16_s), "cpu", monkeypatch) == expected


def test_the_types_are_measured_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = Torch()
    chosen(torch, "cpu", monkeypatch)
    assert torch.products == ["float32", "bfloat16"] * 20
