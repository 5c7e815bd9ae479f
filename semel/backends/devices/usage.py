"""How much of its memory and time a device uses, as far as its framework or driver reports it."""

import os
import sys
from dataclasses import dataclass

from semel.values.device import device_kind


@dataclass(frozen=True)
class Usage:
    """Memory and load of a device.

    Attributes:
        memory_bytes: GPU memory that this process uses; the process's own memory if the device has none.
        total_bytes: size of that memory.
        gpu_utilization: 0 to 1, over the last second; None if the driver does not report it.
    """

    memory_bytes: int
    total_bytes: int
    gpu_utilization: float | None = None


def usage_of(device: str) -> Usage:
    """Ask the framework that this process has loaded; never loads one, nor waits for one that is being loaded.

    Args:
        device: its full name; this process is pinned to it.
    """
    kind = device_kind(device)
    if kind == "cuda" and _is_loaded("torch"):
        import torch

        return Usage(torch.cuda.memory_reserved(), torch.cuda.get_device_properties(0).total_memory, _utilization())
    if kind == "mps" and _is_loaded("torch"):
        import torch

        return Usage(torch.mps.driver_allocated_memory(), torch.mps.recommended_max_memory())
    if kind == "mlx" and _is_loaded("mlx.core"):
        import mlx.core as mx

        if mx.metal.is_available():
            total = int(mx.device_info().get("max_recommended_working_set_size", 0))
            return Usage(mx.get_active_memory() + mx.get_cache_memory(), total or _machine_bytes())
    return Usage(_resident_bytes(), _machine_bytes())


def _is_loaded(module: str) -> bool:
    """Whether a module is imported; not while another thread imports it, for which `import` would wait."""
    found = sys.modules.get(module)
    return found is not None and not getattr(getattr(found, "__spec__", None), "_initializing", False)


def _utilization() -> float | None:
    """The load of the GPU that this process sees, from NVIDIA's library (nvidia-ml-py); None if that gives none."""
    import torch

    try:
        return float(torch.cuda.utilization()) / 100
    # No library, a slice of a GPU, a driver that does not report it: NVIDIA's errors have no common root.
    except Exception:  # noqa: BLE001
        return None


def _machine_bytes() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _resident_bytes() -> int:
    """Memory of this process: its current size on Linux, its peak elsewhere."""
    import resource

    try:
        with open("/proc/self/statm") as statm:  # noqa: PTH123  # the kernel's answer, not a file
            return int(statm.read().split()[1]) * resource.getpagesize()
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS, kibibytes elsewhere
        return peak if sys.platform == "darwin" else peak * 1024
