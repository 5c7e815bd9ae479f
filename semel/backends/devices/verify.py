"""The self-test of a device: a small computation on it, compared with the CPU.

Drivers, half-installed libraries and broken hardware often give wrong numbers without an error.
"""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from semel.backends.devices.find import torch_name
from semel.backends.vulkan.session import softmax_of_product
from semel.errors import BackendError
from semel.values.device import device_kind

Matrix: TypeAlias = npt.NDArray[np.float32]
"""float32 (rows, columns)."""

_TOLERANCE = 2e-3
"""The largest allowed difference, of numbers from 0 to 1: float16 and TF32 keep three digits, a wrong kernel none."""


def verify(device: str) -> None:
    """Compute softmax(A Bᵀ) of two 96 × 64 matrices, as attention does, and compare the result with numpy's.

    Args:
        device: its name in `semel devices`; this process is pinned to it.

    Raises:
        BackendError: the computation fails, or its numbers are wrong; the message says by how much.
    """
    random = np.random.default_rng(0)
    left, right = (random.standard_normal((96, 64)).astype(np.float32) / np.float32(3) for _ in range(2))
    try:
        result = _RUNS[device_kind(device)](device, left, right)
    except Exception as error:  # drivers and frameworks raise anything
        raise BackendError(f"{device} failed its self-test: {error}") from error
    off = float(np.abs(result - _softmax(left @ right.T)).max()) if np.isfinite(result).all() else float("nan")
    if not off <= _TOLERANCE:
        raise BackendError(
            f"{device} failed its self-test: its numbers are off by {off:.2g} where {_TOLERANCE:g} is allowed; "
            "update its driver, or use another device"
        )


def _softmax(scores: Matrix) -> Matrix:
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    shares: Matrix = powers / powers.sum(axis=1, keepdims=True)
    return shares


def _on_torch(device: str, left: Matrix, right: Matrix) -> Matrix:
    import torch

    target = torch.device(torch_name(device))
    product = torch.from_numpy(left).to(target) @ torch.from_numpy(right).to(target).T
    result: Matrix = torch.softmax(product, dim=1).cpu().numpy()
    return result


def _on_mlx(_device: str, left: Matrix, right: Matrix) -> Matrix:
    import mlx.core as mx

    return np.asarray(mx.softmax(mx.array(left) @ mx.array(right).T, axis=1))


def _on_vulkan(_device: str, left: Matrix, right: Matrix) -> Matrix:
    return softmax_of_product(left, right)


_RUNS: dict[str, Callable[[str, Matrix, Matrix], Matrix]] = {
    "cpu": _on_torch,
    "cuda": _on_torch,
    "mps": _on_torch,
    "mlx": _on_mlx,
    "vulkan": _on_vulkan,
}
"""Kind of device → softmax of the product of two matrices on it; arguments: device, left, right."""
