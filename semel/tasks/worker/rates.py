"""How fast a worker's device computes with each model, kept in a file for the next worker on this device."""

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from semel.atomic_write import atomic_write
from semel.backends.submission import ModelStats
from semel.log import get_log
from semel.tasks.fleet.card import ModelRate

log = get_log("worker")

_ENOUGH_S = 2.0
"""A rate over less of the device's time says little: the first batches are slow."""

_WRITE_EVERY_S = 60.0


class KeptRates:
    """The rates of the models on one device.

    Args:
        file: a JSON file, created when needed; workers on other devices of this machine write it, too.
        device: its name.
    """

    def __init__(self, file: Path, device: str) -> None:
        self._file = file
        self._device = device
        self._known = _read(file).get(device, {})
        self._written_at = time.monotonic()

    def update(self, stats: Mapping[str, ModelStats], weights: Mapping[str, str]) -> dict[str, ModelRate]:
        """Model → its rate: that of an earlier worker, until this one has computed for some seconds.

        Args:
            stats: model → what it has computed here.
            weights: model → the digest of its weights: an earlier rate counts for the same weights only.
        """
        rates: dict[str, ModelRate] = {}
        for model, digest in weights.items():
            known = self._known.get(model)
            if known and known.weights == digest:
                rates[model] = known.rate
            done = stats.get(model)
            if done and done.tokens and (done.busy_s >= _ENOUGH_S or model not in rates):
                rates[model] = ModelRate(done.tokens / done.busy_s, done.tokens / done.texts)
            if done and done.busy_s >= _ENOUGH_S and model in rates:
                self._known[model] = _Known(digest, rates[model])
        if time.monotonic() - self._written_at > _WRITE_EVERY_S:
            self.write()
        return rates

    def write(self) -> None:
        """Keep the rates; a file that cannot be written costs no more than a forecast after the next start."""
        self._written_at = time.monotonic()
        devices = {**_read(self._file), self._device: self._known}
        plain = {
            device: {model: {"weights": known.weights, **asdict(known.rate)} for model, known in models.items()}
            for device, models in devices.items()
        }
        try:
            with atomic_write(self._file) as file:
                file.write(json.dumps(plain, indent=1).encode())
        except OSError as error:
            log.warning("rates of models not kept", reason=str(error))


@dataclass(frozen=True)
class _Known:
    weights: str
    rate: ModelRate


def _read(file: Path) -> dict[str, dict[str, _Known]]:
    """Device → model → its rate; empty if there is no file, or none of this version."""
    try:
        return {
            device: {model: _Known(str(known.pop("weights")), ModelRate(**known)) for model, known in models.items()}
            for device, models in json.loads(file.read_text()).items()
        }
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}
