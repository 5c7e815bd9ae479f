"""Chooses the device for a worker, with the reason: by order, by use case, or by figures measured on this machine."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from semel.backends.devices.find import find_devices
from semel.errors import UnknownDeviceError
from semel.values.device import KINDS, DeviceInfo, Measured, UseCase, best_of, device_kind


def choose_device(
    requested: str,
    devices: Sequence[DeviceInfo],
    *,
    use_case: UseCase = "auto",
    measured: Mapping[str, Measured] | None = None,
) -> tuple[str, str]:
    """Return the device to use, and why.

    Args:
        requested: a name (`cpu`, `cuda:1`), a kind (`cuda`) or `auto`.
        devices: the devices of this machine, the preferred kinds first.
        use_case: what `auto` chooses for.
        measured: device → figures; they decide if every usable device has some.

    Raises:
        UnknownDeviceError: the device cannot be used; the message says why, and lists the usable devices.
    """
    usable = [device for device in devices if device.usable]
    if requested == "auto":
        if not usable:
            raise UnknownDeviceError("no device is usable here: " + "; ".join(f"{d.name}: {d.why}" for d in devices))
        real = [device for device in usable if not device.software] or usable
        reasons = {device.name: device.why for device in reversed(real)}
        best, why = best_of([device.name for device in real], use_case=use_case, measured=measured or {})
        return best, f"{why} ({reasons[best]})"
    for device in usable:
        if requested in (device.name, device_kind(device.name)):
            return device.name, "requested"
    reason = next((d.why for d in devices if d.name.startswith(requested)), "semel knows no such device")
    names = ", ".join(d.name for d in usable) or "none"
    raise UnknownDeviceError(f"device {requested!r} cannot be used: {reason} (usable here: {names})")


def find_device(
    requested: str, *, software: bool, use_case: UseCase, measured: Mapping[str, Measured]
) -> tuple[str, str]:
    """Return the device of this machine that a name, a kind or `auto` stands for, and why.

    Args:
        requested, use_case, measured: as for `choose_device`.
        software: accept a device that imitates a GPU on the CPU.

    Raises:
        UnknownDeviceError: as `choose_device`.
    """
    kind = device_kind(requested) if device_kind(requested) in KINDS else None
    found = find_devices(software=software, kind=kind)
    try:
        return choose_device(requested, found, use_case=use_case, measured=measured)
    except UnknownDeviceError:
        if kind is None:
            raise
        # look at every kind, for the list of those that are usable
        return choose_device(requested, find_devices(software=software), use_case=use_case, measured=measured)


class Measurements:
    """The figures of `semel devices --measure`, kept next to the database.

    Args:
        file: a JSON file, created when needed.
    """

    def __init__(self, file: Path) -> None:
        self._file = file

    def read(self) -> dict[str, Measured]:
        """Return device → figures; empty if nothing was measured."""
        try:
            known = json.loads(self._file.read_text())
            return {device: Measured(**figures) for device, figures in known.items()}
        except (OSError, ValueError, TypeError, AttributeError):  # no file yet, or another version of semel wrote it
            return {}

    def of_model(self, model: str) -> dict[str, Measured]:
        """Return the figures that were measured with this model, by device."""
        return {device: figures for device, figures in self.read().items() if figures.model == model}

    def write(self, measured: Mapping[str, Measured]) -> None:
        """Replace the figures by these, device → figures."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._file.write_text(json.dumps({device: asdict(figures) for device, figures in measured.items()}, indent=1))
