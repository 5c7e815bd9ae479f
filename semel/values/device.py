"""Kinds of device, and the choice of one among several."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

KINDS = ("mlx", "cuda", "vulkan", "mps", "cpu")
"""Every kind of device that semel supports, in the order in which `auto` prefers them."""

UseCase: TypeAlias = Literal["auto", "low_latency", "high_throughput", "memory_efficient", "cross_platform"]
"""The goal of a choice among devices; `ORDERS` lists the preferred kinds for each."""


def device_kind(device: str) -> str:
    """The kind of a device: `cuda` for `cuda:1`."""
    return device.partition(":")[0]


@dataclass(frozen=True)
class DeviceInfo:
    """A device that this machine has or does not have, with the reason.

    Attributes:
        name: such as `cpu` or `cuda:1`.
        usable: whether semel can compute on it.
        why: what the device is, or what is missing.
        software: whether it imitates a GPU on the CPU.
    """

    name: str
    usable: bool
    why: str
    software: bool = False


@dataclass(frozen=True)
class Measured:
    """The speed of a device on this machine, from `semel devices --measure`.

    Attributes:
        model: the model that was measured.
        texts_per_s: throughput for a batch of sentences.
        latency_ms: median time for one sentence.
    """

    model: str
    texts_per_s: float
    latency_ms: float


ORDERS: dict[UseCase, tuple[str, ...]] = {
    "auto": KINDS,
    # One text at a time: launching a GPU graph costs more than the arithmetic of a small model.
    "low_latency": ("mlx", "cuda", "cpu", "mps", "vulkan"),
    "high_throughput": ("cuda", "mlx", "vulkan", "mps", "cpu"),
    # Memory shared with the rest of the machine first, then a GPU's own, then runtimes that hold graphs and weights.
    "memory_efficient": ("mlx", "cpu", "mps", "cuda", "vulkan"),
    # First the devices that exist on every system and compute in one dtype.
    "cross_platform": ("vulkan", "cpu", "cuda", "mps", "mlx"),
}
"""Kinds of device by use case, the preferred one first; measurements take precedence."""


def best_of(names: Iterable[str], *, use_case: UseCase, measured: Mapping[str, Measured]) -> tuple[str, str]:
    """Choose among devices or kinds of device; returns the choice and the reason for it.

    The measurements decide if there is one for each name, otherwise `ORDERS`.

    Args:
        names: at least one device or kind.
        use_case: the goal of the choice.
        measured: name → its speed.
    """
    names = sorted(names, key=lambda name: ORDERS[use_case].index(device_kind(name)))
    known = [name for name in names if name in measured]
    if len(names) > 1 and len(known) == len(names):
        if use_case == "low_latency":
            best = min(names, key=lambda name: measured[name].latency_ms)
            figures = ", ".join(f"{name} {measured[name].latency_ms:.1f} ms" for name in names)
            return best, f"the lowest latency measured here: {figures}"
        best = max(names, key=lambda name: measured[name].texts_per_s)
        figures = ", ".join(f"{name} {measured[name].texts_per_s:,.0f} texts/s" for name in names)
        return best, f"the fastest measured here: {figures}"
    rule = "the first available of" if use_case == "auto" else f"for {use_case}, the first available of"
    return names[0], f"{rule} {', '.join(ORDERS[use_case])}"
