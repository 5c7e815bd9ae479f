"""Which device takes the work, and why: by order, by use case, or by what was measured on this machine."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from semel.backends.devices.find import find_devices
from semel.errors import UnknownDeviceError
from semel.values.device import KINDS, DeviceInfo, Measured, UseCase, best_of, device_kind


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


def find_device(wanted: str, *, software: bool, use_case: UseCase, measured: Mapping[str, Measured]) -> tuple[str, str]:
    """The device of this machine that a name, a kind or `auto` stands for, and why.

    Args:
        software: also use what only imitates a GPU on the CPU.
        use_case, measured: as for `choose_device`.

    Raises:
        UnknownDeviceError: it is not here; the message lists what is.
    """
    kind = device_kind(wanted)
    found = find_devices(software=software, kind=kind if kind in KINDS else None)
    return choose_device(wanted, found, use_case=use_case, measured=measured)


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

    def of_model(self, model: str) -> dict[str, Measured]:
        """The figures that were measured with this model."""
        return {device: figures for device, figures in self.read().items() if figures.model == model}

    def write(self, measured: Mapping[str, Measured]) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._file.write_text(json.dumps({device: asdict(figures) for device, figures in measured.items()}, indent=1))
