"""Which device takes the work, and why: by order, by use case, or by what was measured on this machine."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from semel.backends.devices.find import KINDS, find_devices
from semel.errors import UnknownDeviceError
from semel.settings import Settings
from semel.values import DeviceInfo, Measured, UseCase, device_kind

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


def choose_device(
    wanted: str,
    devices: Sequence[DeviceInfo],
    *,
    use_case: UseCase = "auto",
    measured: Mapping[str, Measured] | None = None,
) -> tuple[str, str]:
    """The device to use, and why.

    Args:
        wanted: a name (`cpu`, `cuda:1`), a kind (`cuda`) or `auto`.
        measured: device → figures; they decide when every usable device has some.

    Raises:
        UnknownDeviceError: not here; says what is.
    """
    usable = [device for device in devices if device.usable]
    if wanted == "auto":
        if not usable:
            raise UnknownDeviceError("no device is usable here: " + "; ".join(f"{d.name}: {d.why}" for d in devices))
        real = [device for device in usable if not device.software] or usable
        about = {device.name: device.why for device in reversed(real)}
        best, why = best_of([device.name for device in real], use_case=use_case, measured=measured or {})
        return best, f"{why} ({about[best]})"
    for device in usable:
        if wanted in (device.name, device_kind(device.name)):
            return device.name, "asked for"
    lacking = next((d.why for d in devices if d.name.startswith(wanted)), "semel knows no such device")
    names = ", ".join(d.name for d in usable) or "none"
    raise UnknownDeviceError(f"device {wanted!r} cannot be used: {lacking} (usable here: {names})")


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


def find_device(wanted: str, settings: Settings) -> tuple[str, str]:
    """The device of this machine that is meant by a name, a kind or `auto`, and why.

    Raises:
        UnknownDeviceError: not here; says what is.
    """
    kind = device_kind(wanted)
    found = find_devices(software=settings.software_devices, kind=kind if kind in KINDS else None)
    return choose_device(wanted, found, use_case=settings.use_case, measured=of_default_model(settings))


def of_default_model(settings: Settings) -> dict[str, Measured]:
    """Device → figures that `auto` goes by."""
    measured = Measurements(settings.measurements).read()
    return {name: figures for name, figures in measured.items() if figures.model == settings.default_model}


class Measurements:
    """The figures of `semel devices --measure`, kept beside the database.

    Args:
        file: JSON, made when needed.
    """

    def __init__(self, file: Path) -> None:
        self._file = file

    def read(self) -> dict[str, Measured]:
        """Device → figures; empty when nothing was measured."""
        try:
            known = json.loads(self._file.read_text())
            return {device: Measured(**figures) for device, figures in known.items()}
        except (
            OSError,
            ValueError,
            TypeError,
            AttributeError,
        ):  # none yet, or written by another version: as if not measured
            return {}

    def write(self, measured: Mapping[str, Measured]) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._file.write_text(json.dumps({device: asdict(figures) for device, figures in measured.items()}, indent=1))
