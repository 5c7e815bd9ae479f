"""Kinds of device, and which of them takes the work."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

KINDS = ("mlx", "cuda", "vulkan", "mps", "cpu")
"""Every kind of device that semel knows, in the order in which `auto` prefers them."""

UseCase: TypeAlias = Literal["auto", "low_latency", "high_throughput", "memory_efficient", "cross_platform"]
"""What a device is chosen for; `ORDERS` has the preferred devices of each."""


def device_kind(device: str) -> str:
    """`cuda` for `cuda:1`."""
    return device.partition(":")[0]


@dataclass(frozen=True)
class DeviceInfo:
    """A device that this machine has or lacks, with the reason.

    Attributes:
        software: it imitates a GPU on the CPU.
    """

    name: str
    usable: bool
    why: str
    software: bool = False


@dataclass(frozen=True)
class Measured:
    """What a device did on this machine (`semel devices --measure`).

    Attributes:
        texts_per_s: of a batch of sentences.
        latency_ms: median for one sentence.
    """

    model: str
    texts_per_s: float
    latency_ms: float


ORDERS: dict[UseCase, tuple[str, ...]] = {
    "auto": KINDS,
    # One text at a time: starting work on a GPU through a graph runtime costs more than a small model's arithmetic.
    "low_latency": ("mlx", "cuda", "cpu", "mps", "vulkan"),
    "high_throughput": ("cuda", "mlx", "vulkan", "mps", "cpu"),
    # Memory that is shared with the rest of the machine first, then a GPU's own, then graphs beside their weights.
    "memory_efficient": ("mlx", "cpu", "mps", "cuda", "vulkan"),
    # What runs on every system, in one dtype, first.
    "cross_platform": ("vulkan", "cpu", "cuda", "mps", "mlx"),
}
"""Kinds of device by use case, the preferred first; a measurement overrides them."""


def best_of(names: Iterable[str], *, use_case: UseCase, measured: Mapping[str, Measured]) -> tuple[str, str]:
    """The best of some devices or kinds of them, and why."""
    names = sorted(names, key=lambda name: ORDERS[use_case].index(device_kind(name)))
    known = [name for name in names if name in measured]
    if len(names) > 1 and len(known) == len(names):
        if use_case == "low_latency":
            best = min(names, key=lambda name: measured[name].latency_ms)
            figures = ", ".join(f"{name} {measured[name].latency_ms:.1f} ms" for name in names)
            return best, f"the least latency measured here: {figures}"
        best = max(names, key=lambda name: measured[name].texts_per_s)
        figures = ", ".join(f"{name} {measured[name].texts_per_s:,.0f} texts/s" for name in names)
        return best, f"the fastest measured here: {figures}"
    rule = "the first that is there of" if use_case == "auto" else f"for {use_case}, the first that is there of"
    return names[0], f"{rule} {', '.join(ORDERS[use_case])}"
