"""The models of one device: spaces are read at once, weights are loaded when first needed, idle models are unloaded."""

import threading
import time
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from semel import collector
from semel.backends.devices.find import torch_name
from semel.backends.devices.select import Measurements, find_device
from semel.backends.engine import Engine
from semel.backends.models.digests import Digests
from semel.backends.models.factory import check_runs, create_backend
from semel.backends.models.layout import weight_files
from semel.backends.models.source import ModelSource, find_model
from semel.errors import FingerprintError, ModelLoadError
from semel.log import get_log
from semel.settings import Settings
from semel.tasks.worker.embed import LoadedModel
from semel.tasks.worker.memory import ModelMemory
from semel.values.model import ModelEntry, Producer, Space, base_name, for_device

log = get_log("models")


def choose_device_for(settings: Settings, wanted: str) -> tuple[str, str]:
    """The device of this machine that a name, a kind or `auto` stands for, and the reason.

    Raises:
        UnknownDeviceError: this machine does not have the device.
    """
    return find_device(
        wanted,
        software=settings.software_devices,
        use_case=settings.use_case,
        measured=Measurements(settings.measurements).of_model(settings.default_model),
    )


class LoadedModels:
    """Models by name on one device.

    Args:
        engine: runs all models on its device thread.
        device: a name, a kind or `auto`, which is resolved when it is first needed.
    """

    def __init__(self, settings: Settings, engine: Engine, *, device: str) -> None:
        self._settings = settings
        self._engine = engine
        self._requested = device
        self._digests = Digests(settings.home / "digests.json")
        self._sources: dict[str, ModelSource] = {}
        self._reading: dict[str, threading.Lock] = {}
        self._memory = ModelMemory(
            max_bytes=settings.max_model_bytes,
            weight_bytes=lambda name: self._source(name).weight_bytes,
            load=self._load,
            unload=self._unload,
        )

    @cached_property
    def device(self) -> str:
        """The name of the device that runs the models. Raises UnknownDeviceError."""
        device, why = choose_device_for(self._settings, self._requested)
        log.debug("device chosen", device=device, why=why)
        return device

    @cached_property
    def entries(self) -> dict[str, ModelEntry]:
        """Name → entry, as this device serves them; a model with a source for this device is `NAME@DEVICE`.

        Raises:
            UnknownDeviceError: this machine does not have the device.
        """
        entries = self._settings.all_models
        if self._requested == "auto" and not any(entry.has_own_sources for entry in entries.values()):
            return entries  # the same on every device; looking for devices would import every framework
        return for_device(entries, self.device if self._requested == "auto" else self._requested)

    @property
    def all_fake(self) -> bool:
        """Whether all models are fake, so that no framework is needed."""
        return all(entry.source.startswith("fake:") for entry in self.entries.values())

    def full_name(self, name: str) -> str:
        """The name under which this device serves a model: its own, or `NAME@DEVICE`."""
        own = (key for key in self.entries if base_name(key) == name)
        return name if name in self.entries else next(own, name)

    def _source(self, name: str) -> ModelSource:
        """A model whose files have been found and hashed. One thread does it, and others that need this model wait."""
        with self._reading.setdefault(name, threading.Lock()):
            source = self._sources.get(name) or self._find(name)
            source.described  # noqa: B018  # it downloads the files and hashes them, once
            self._sources[name] = source
        return source

    def _find(self, name: str) -> ModelSource:
        return find_model(name, self.entries, models_dir=self._settings.models_dir, digests=self._digests)

    def spaces(self, name: str) -> dict[str, Space]:
        """Prompt name → space, read from the files only. Raises UnknownModelError, ModelLoadError."""
        name = self.full_name(name)
        source = self._source(name)
        described = source.described
        spaces = {}
        for prompt_name, prompt in described.prompts.items():
            spec = replace(described.spec, prompt=prompt)
            spaces[prompt_name] = Space(
                fingerprint=spec.fingerprint,
                model=name,
                prompt_name=prompt_name,
                dim=described.dim,
                max_tokens=spec.max_tokens,
                precision=spec.precision,
                spec_json=spec.canonical_json().decode(),
                matryoshka_dims=source.entry.matryoshka_dims,
            )
        return spaces

    def weight_files(self, name: str) -> list[Path]:
        """The files with a model's weights; none for a fake model. Raises UnknownModelError, ModelLoadError."""
        source = self._source(self.full_name(name))
        return [] if source.is_fake else weight_files(source.path)

    def available(self, names: Iterable[str]) -> dict[str, dict[str, Space]]:
        """Model → prompt name → space, for the models that can run here; the reason for the others is logged."""
        found = {}
        for name in names:
            try:
                spaces = self.spaces(name)
                if self._requested != "auto":  # else no device has been looked for yet
                    check_runs(self._source(self.full_name(name)), self._requested)
                found[name] = spaces
            except ModelLoadError as error:
                log.warning("model not served here", model=name, reason=str(error))
        return found

    def get(self, name: str) -> LoadedModel:
        """A model, loaded on first use; other threads wait. Raises UnknownModelError, ModelLoadError, BackendError."""
        with self.using(name) as model:
            return model

    def using(self, name: str) -> AbstractContextManager[LoadedModel]:
        """As `get`, and the model is not unloaded within the block. Loading one delays no other. Raises as `get`."""
        return self._memory.using(self.full_name(name))

    def _load(self, name: str) -> LoadedModel:
        source = self._source(name)
        # A fake model needs no framework, so no device has to be found.
        device = "cpu" if self._requested == "auto" and source.entry.source.startswith("fake:") else self.device
        started = time.perf_counter()
        backend = create_backend(
            source, torch_name(device), threads=self._settings.cpu_threads, converted=self._settings.home / "converted"
        )
        warm_up = self._engine.load(backend)
        if self._find(name).described.spec != source.described.spec:
            self._engine.unload(backend)
            raise FingerprintError(f"the files of model {name!r} changed since this process started; restart it")
        collector.keep_loaded()
        info, load_s = backend.get_model_info(), time.perf_counter() - started
        log.info(
            "model loaded",
            model=name,
            device=device,
            dtype=info.dtype,
            why=info.why,
            seconds=round(load_s, 1),
            megabytes=info.weight_bytes >> 20,
            warm_up=warm_up,
        )
        producer = Producer(device, info.backend, info.dtype)
        return LoadedModel(backend, producer, source.described.prompts, self.spaces(name), load_s)

    def _unload(self, model: LoadedModel) -> None:
        self._engine.unload(model.backend)
        collector.forget_unloaded()

    def loaded(self) -> list[LoadedModel]:
        """The models in memory, in the order in which they were loaded."""
        return self._memory.loaded()
