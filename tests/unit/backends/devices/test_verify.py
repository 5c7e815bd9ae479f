"""The self-test of a device fails on wrong numbers, on NaN and on any error."""

import re
from collections.abc import Callable

import numpy as np
import pytest

from semel.backends.devices import verify as verify_module
from semel.backends.devices.verify import Matrix, verify
from semel.errors import BackendError
from semel.values.device import KINDS

Run = Callable[[str, Matrix, Matrix], Matrix]


def softmax_of_product(left: Matrix, right: Matrix) -> Matrix:
    powers = np.exp(left @ right.T)
    result: Matrix = powers / powers.sum(axis=1, keepdims=True)
    return result


def run_as(run: Run, monkeypatch: pytest.MonkeyPatch, device: str = "cpu") -> None:
    monkeypatch.setitem(verify_module._RUNS, device.partition(":")[0], run)
    verify(device)


def test_every_kind_of_device_has_a_self_test() -> None:
    assert set(verify_module._RUNS) == set(KINDS)


@pytest.mark.parametrize("device", ["cpu", "cuda:1", "vulkan:0"])
def test_right_numbers_pass_and_the_device_gets_its_full_name(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    names = []

    def run(name: str, left: Matrix, right: Matrix) -> Matrix:
        names.append(name)
        assert left.shape == right.shape == (96, 64)
        assert left.dtype == np.float32
        return softmax_of_product(left, right)

    run_as(run, monkeypatch, device)
    assert names == [device]


def test_the_rounding_of_float16_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(_: str, left: Matrix, right: Matrix) -> Matrix:
        return softmax_of_product(left.astype(np.float16).astype(np.float32), right).astype(np.float16)

    run_as(run, monkeypatch)


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (lambda _, left, right: softmax_of_product(left, right) + 0.01, "its numbers are off by 0.01 where 0.002 is"),
        (lambda _, left, right: left @ right.T, "its numbers are off by"),
        (lambda _, left, right: softmax_of_product(right, left).T, "its numbers are off by"),
        (lambda _, left, right: softmax_of_product(left, right) * np.nan, "its numbers are off by nan"),
    ],
    ids=["offset", "no softmax", "swapped", "nan"],
)
def test_wrong_numbers_fail_with_their_size(run: Run, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BackendError, match=f"^cpu failed its self-test: {re.escape(message)}"):
        run_as(run, monkeypatch)


def test_one_wrong_number_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(_: str, left: Matrix, right: Matrix) -> Matrix:
        result = softmax_of_product(left, right)
        result[95, 95] += 0.003
        return result

    with pytest.raises(BackendError, match=r"off by 0\.003"):
        run_as(run, monkeypatch)


@pytest.mark.parametrize("error", [RuntimeError("no kernel image"), ImportError("no driver"), MemoryError("full")])
def test_any_error_of_the_framework_is_a_failed_self_test(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*_: object) -> Matrix:
        raise error

    with pytest.raises(BackendError, match=f"mlx failed its self-test: {error}") as raised:
        run_as(run, monkeypatch, "mlx")
    assert raised.value.__cause__ is error
