"""What a device uses of its memory and time, as far as its framework or driver tells."""

import os
import sys
from dataclasses import dataclass

from semel.values.device import device_kind


@dataclass(frozen=True)
class Usage:
    """Attributes:
    memory_bytes: of the GPU, by this process; of the process, where the device computes in the machine's memory.
    total_bytes: what there is of it, for everybody.
    gpu_utilization: 0 to 1, of the last second; None where nobody tells.
    """

    memory_bytes: int
    total_bytes: int
    gpu_utilization: float | None = None


def usage_of(device: str) -> Usage:
    """Asks the framework that this process has loaded, and loads none."""
    kind = device_kind(device)
    if kind == "cuda" and "torch" in sys.modules:
        import torch

        return Usage(torch.cuda.memory_reserved(), torch.cuda.get_device_properties(0).total_memory, _utilization())
    if kind == "mps" and "torch" in sys.modules:
        import torch

        return Usage(torch.mps.driver_allocated_memory(), torch.mps.recommended_max_memory())
    if kind == "mlx" and "mlx.core" in sys.modules:
        import mlx.core as mx

        if mx.metal.is_available():
            most = int(mx.device_info().get("max_recommended_working_set_size", 0))
            return Usage(mx.get_active_memory() + mx.get_cache_memory(), most or _machine_bytes())
    return Usage(_resident_bytes(), _machine_bytes())


def _utilization() -> float | None:
    """Of the GPU that this process sees; through NVIDIA's library where it is installed (nvidia-ml-py)."""
    import torch

    try:
        return float(torch.cuda.utilization()) / 100
    except Exception:  # no library, a slice of a GPU, a driver that does not tell: NVIDIA's errors have no common root
        return None


def _machine_bytes() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _resident_bytes() -> int:
    """Memory of this process, now on Linux, at its highest elsewhere."""
    import resource

    try:
        with open("/proc/self/statm") as statm:  # noqa: PTH123  # no file, a question to the kernel
            return int(statm.read().split()[1]) * resource.getpagesize()
    except OSError:
        highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return highest if sys.platform == "darwin" else highest * 1024
