"""Which devices this machine has or lacks, and why."""

import importlib.util
import os
from collections.abc import Sequence

from semel.errors import UnknownDeviceError
from semel.values import DeviceInfo

PREFERENCE = ("mlx", "cuda", "vulkan", "mps", "cpu")
"""What `auto` takes, the first that is there. Devices without a backend in this version never are."""


def find_devices() -> list[DeviceInfo]:
    """Every kind of device, usable or not, in order of preference. Imports torch where it is installed."""
    if not importlib.util.find_spec("torch") or not importlib.util.find_spec("sentence_transformers"):
        why = "torch is not installed: pip install 'semel[cpu]'"
        return [DeviceInfo(name, usable=False, why=why) for name in ("cuda:0", "mps", "cpu")]
    import torch

    found: list[DeviceInfo] = []
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            found.append(DeviceInfo(f"cuda:{index}", usable=True, why=torch.cuda.get_device_name(index)))
    elif torch.version.cuda is None:
        found.append(
            DeviceInfo("cuda:0", usable=False, why="this torch is built without CUDA: pip install 'semel[cuda]'")
        )
    else:
        found.append(DeviceInfo("cuda:0", usable=False, why="torch finds no NVIDIA GPU or no driver for it"))
    if torch.backends.mps.is_available():
        found.append(DeviceInfo("mps", usable=True, why="Apple GPU"))
    else:
        found.append(DeviceInfo("mps", usable=False, why="needs a Mac with Apple silicon"))
    found.append(DeviceInfo("cpu", usable=True, why=f"{os.cpu_count()} cores"))
    return found


def choose_device(wanted: str, devices: Sequence[DeviceInfo]) -> tuple[str, str]:
    """The device to use, and why.

    Args:
        wanted: a name (`cpu`, `cuda:1`), a kind (`cuda`) or `auto`.

    Raises:
        UnknownDeviceError: not here; says what is.
    """
    usable = [d for d in devices if d.usable]
    if wanted == "auto":
        ranked = sorted(usable, key=lambda d: PREFERENCE.index(d.name.partition(":")[0]))
        if not ranked:
            raise UnknownDeviceError("no device is usable here: " + "; ".join(f"{d.name}: {d.why}" for d in devices))
        return ranked[0].name, f"first of {', '.join(PREFERENCE)} that is here ({ranked[0].why})"
    for device in usable:
        if wanted in (device.name, device.name.partition(":")[0]):
            return device.name, "asked for"
    lacking = next((d.why for d in devices if d.name.startswith(wanted)), "semel knows no such device")
    names = ", ".join(d.name for d in usable) or "none"
    raise UnknownDeviceError(f"device {wanted!r} cannot be used: {lacking} (usable here: {names})")
