"""Which devices this machine has or lacks, and why. `semel.backends.devices.verify` checks that they work."""

import importlib.util
import os
import platform
import sys
from collections.abc import Callable

from semel.backends.devices.cores import usable_cores, why_fewer
from semel.backends.vulkan.session import find_adapters
from semel.log import get_log
from semel.values.device import KINDS, DeviceInfo, device_kind

log = get_log("devices")

_GIB = 1 << 30

_KEPT_KERNELS = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "256", "LRU_CACHE_CAPACITY": "32"}
"""How many compiled kernels oneDNN, and PyTorch's layer around it, keep; both read it when torch is imported.

By default both keep 1,024, one for each shape of a matrix: 0.9 GB after 4,000 texts of mixed length. Fewer than these
are compiled again too often (docs/explanation/performance.md).
"""


def find_devices(*, software: bool = False, kind: str | None = None) -> list[DeviceInfo]:
    """List the devices of every kind, usable or not, in order of preference. Imports the installed frameworks.

    Args:
        software: accept a device that imitates a GPU on the CPU (SEMEL_SOFTWARE_DEVICES): slow, and good for tests.
        kind: list this kind only.
    """
    for name, kept in _KEPT_KERNELS.items():
        os.environ.setdefault(name, kept)
    probes: dict[str, Callable[[], list[DeviceInfo]]] = {
        "mlx": lambda: [_mlx(software=software)],
        "cuda": _cuda,
        "vulkan": lambda: _vulkan(software=software),
        "mps": lambda: [_mps()],
        "cpu": lambda: [_cpu()],
    }
    return [device for name in KINDS if kind in (None, name) for device in probes[name]()]


def describe(device: str) -> DeviceInfo:
    """Return one device of this machine by its full name; not usable if this machine lacks it."""
    found = find_devices(software=True, kind=device_kind(device))
    return next((about for about in found if about.name == device), DeviceInfo(device, usable=False, why="not found"))


class _Pinned:
    """The only GPU that this process sees; "" if it sees all of them."""

    device: str = ""


def pin(device: str) -> None:
    """Hide every GPU but one from this process. Call it before any framework is imported.

    The device keeps its name (`cuda:1`). If CUDA_VISIBLE_DEVICES is set, the number is a position in that list.
    """
    kind, _, index = device.partition(":")
    if kind != "cuda" or not index.isdigit():
        return
    visible = [part for part in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if part]
    if visible and int(index) >= len(visible):
        return  # there is no such GPU; find_devices reports that
    os.environ["CUDA_VISIBLE_DEVICES"] = visible[int(index)] if visible else index
    _Pinned.device = device


def torch_name(device: str) -> str:
    """Return torch's name of a device: a process that is pinned to one GPU sees it as the first."""
    return "cuda:0" if device == _Pinned.device else device


def _lacks(device: str, why: str) -> DeviceInfo:
    return DeviceInfo(device, usable=False, why=why)


def _installed(*modules: str) -> bool:
    return all(importlib.util.find_spec(module) for module in modules)


def _mlx(*, software: bool) -> DeviceInfo:
    if not _installed("mlx", "mlx_lm"):
        return _lacks("mlx", "mlx is not installed: pip install 'semel[mlx]' (on a Mac with Apple silicon)")
    try:
        import mlx.core as mx
    except ImportError as error:  # the library is installed, but not its part for this platform
        return _lacks("mlx", f"mlx is installed, but does not load ({error}): pip install 'semel[mlx]'")
    if mx.metal.is_available():
        about = mx.device_info()
        memory = int(about.get("max_recommended_working_set_size", 0))
        return DeviceInfo("mlx", usable=True, why=f"{about.get('device_name', 'Apple GPU')}, {_gib(memory)}")
    why = "on the CPU, no Metal here: slower than torch"
    if not software:
        return _lacks("mlx", f"{why} (SEMEL_SOFTWARE_DEVICES=true allows it, for tests)")
    return DeviceInfo("mlx", usable=True, why=why, software=True)


def _cuda() -> list[DeviceInfo]:
    if not _installed("torch", "sentence_transformers"):
        return [_lacks("cuda:0", "torch is not installed: pip install 'semel[cuda]'")]
    if broken := _broken_torch():
        return [_lacks("cuda:0", broken)]
    import torch

    if torch.cuda.is_available():
        found = []
        for index in range(torch.cuda.device_count()):
            about = torch.cuda.get_device_properties(index)
            name = _Pinned.device or f"cuda:{index}"
            found.append(DeviceInfo(name, usable=True, why=f"{about.name}, {_gib(about.total_memory)}"))
        return found
    if torch.version.cuda is None:
        return [_lacks("cuda:0", "this torch is built without CUDA: pip install 'semel[cuda]'")]
    try:
        torch.cuda.init()
        why = "torch finds no NVIDIA GPU"
    except (RuntimeError, AssertionError) as error:  # the driver is missing or too old; torch's message says which
        why = str(error).partition("\n")[0]
    return [_lacks("cuda:0", why)]


def _mps() -> DeviceInfo:
    if not _installed("torch", "sentence_transformers"):
        return _lacks("mps", "torch is not installed: pip install 'semel[cpu]'")
    if broken := _broken_torch():
        return _lacks("mps", broken)
    import torch

    if not torch.backends.mps.is_available():
        return _lacks("mps", "needs a Mac with Apple silicon and macOS 13 or newer")
    free = torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    return DeviceInfo("mps", usable=True, why=f"Apple GPU, {_gib(free)} free")


def _vulkan(*, software: bool) -> list[DeviceInfo]:
    if sys.platform == "darwin":
        return [_lacks("vulkan:0", "macOS has no Vulkan: use mlx (pip install 'semel[mlx]') or mps")]
    if not _installed("onnxruntime", "onnxruntime_ep_webgpu"):
        return [_lacks("vulkan:0", "ONNX Runtime's WebGPU plugin is not installed: pip install 'semel[vulkan]'")]
    return find_adapters(software=software)


def _cpu() -> DeviceInfo:
    if not _installed("torch", "sentence_transformers"):
        return _lacks("cpu", "torch is not installed: pip install 'semel[cpu]'")
    if broken := _broken_torch():
        return _lacks("cpu", broken)
    fewer = f" ({reason})" if (reason := why_fewer()) else ""
    return DeviceInfo("cpu", usable=True, why=f"{platform.machine()}, {usable_cores()} cores{fewer}")


def _broken_torch() -> str:
    """Why an installed torch does not load; "" if it does."""
    try:
        import torch  # noqa: F401
    except (ImportError, OSError) as error:
        return f"torch is installed, but does not load ({error}): install it again"
    return ""


def _gib(size: int) -> str:
    return f"{size / _GIB:.0f} GB"
