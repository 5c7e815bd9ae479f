"""Is a device fit for work? A small computation on it, compared with the CPU.

Drivers, half-installed libraries and broken hardware give wrong numbers without an error more often than one thinks.
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

_TOLERANCE = 2e-3
"""Of numbers between 0 and 1: float16 and TF32 keep three digits, a wrong kernel keeps none."""


def verify(device: str) -> None:
    """Compute softmax(A Bᵀ) for 96 × 64 numbers, as attention does, and compare.

    Args:
        device: as `semel devices` names it; this process is pinned to it.

    Raises:
        BackendError: it fails, or computes something else; the message says how far off.
    """
    random = np.random.default_rng(0)
    left, right = (random.standard_normal((96, 64)).astype(np.float32) / np.float32(3) for _ in range(2))
    try:
        got = _RUNS[device_kind(device)](device, left, right)
    except Exception as error:  # drivers and frameworks raise anything
        raise BackendError(f"{device} failed its self-test: {error}") from error
    off = float(np.abs(got - _softmax(left @ right.T)).max()) if np.isfinite(got).all() else float("nan")
    if not off <= _TOLERANCE:
        raise BackendError(
            f"{device} failed its self-test: its numbers are off by {off:.2g} where {_TOLERANCE:g} is allowed; "
            "update its driver, or use another device"
        )


def _softmax(scores: Matrix) -> Matrix:
    shares = np.exp(scores - scores.max(axis=1, keepdims=True))
    normal: Matrix = shares / shares.sum(axis=1, keepdims=True)
    return normal


def _on_torch(device: str, left: Matrix, right: Matrix) -> Matrix:
    import torch

    there = torch.device(torch_name(device))
    product = torch.from_numpy(left).to(there) @ torch.from_numpy(right).to(there).T
    answer: Matrix = torch.softmax(product, dim=1).cpu().numpy()
    return answer


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
