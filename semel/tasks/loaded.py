"""The models of one device: their spaces at once, their weights when first needed."""

import threading
from collections.abc import Iterable
from dataclasses import replace

from semel.backends.devices import choose_device, find_devices
from semel.backends.digests import Digests
from semel.backends.engine import Engine
from semel.backends.registry import ModelSource, find_model
from semel.cache.keys import fingerprint
from semel.errors import FingerprintError, ModelLoadError
from semel.log import get_log
from semel.settings import Settings
from semel.tasks.embed import LoadedModel
from semel.values import Producer, Space

log = get_log("models")


class LoadedModels:
    """Models by name on one device.

    Args:
        engine: runs them; one device thread for all.
        device: where; `auto` is resolved when the first model is loaded.
    """

    def __init__(self, settings: Settings, engine: Engine, *, device: str) -> None:
        self._settings = settings
        self._engine = engine
        self._device = device
        self._digests = Digests(settings.home / "digests.json")
        self._sources: dict[str, ModelSource] = {}
        self._loaded: dict[str, LoadedModel] = {}
        self._lock = threading.Lock()

    def _source(self, name: str) -> ModelSource:
        if name not in self._sources:
            self._sources[name] = self._find(name)
        return self._sources[name]

    def _find(self, name: str) -> ModelSource:
        settings = self._settings
        return find_model(name, settings.all_models, models_dir=settings.models_dir, digests=self._digests)

    def spaces(self, name: str) -> dict[str, Space]:
        """Prompt name → space, from the files alone. Raises UnknownModelError, ModelLoadError."""
        source = self._source(name)
        described = source.described
        spaces = {}
        for prompt_name, prompt in described.prompts.items():
            spec = replace(described.spec, prompt=prompt)
            spaces[prompt_name] = Space(
                fingerprint=fingerprint(spec),
                model=name,
                prompt_name=prompt_name,
                dim=described.dim,
                max_tokens=spec.max_tokens,
                precision=spec.precision,
                spec_json=spec.canonical_json().decode(),
                matryoshka_dims=source.entry.matryoshka_dims,
            )
        return spaces

    def available(self, names: Iterable[str]) -> dict[str, dict[str, Space]]:
        """The spaces of those models whose files are here; why not, for the others, goes to the log."""
        found = {}
        for name in names:
            try:
                found[name] = self.spaces(name)
            except ModelLoadError as error:
                log.warning("model not served here", model=name, reason=str(error))
        return found

    def get(self, name: str) -> LoadedModel:
        """Load on first use; other threads wait. Raises UnknownModelError, ModelLoadError."""
        with self._lock:
            if name not in self._loaded:
                self._loaded[name] = self._load(name)
            return self._loaded[name]

    def _load(self, name: str) -> LoadedModel:
        source = self._source(name)
        device = self._device
        if not source.entry.source.startswith("fake:"):  # a fake model runs where no framework is
            device, _ = choose_device(device, find_devices())
        backend = source.create_backend(device, threads=self._settings.cpu_threads)
        self._engine.load(backend)
        if self._find(name).described.spec != source.described.spec:
            raise FingerprintError(f"the files of model {name!r} changed since this process started; start it again")
        info = backend.get_model_info()
        log.info("model loaded", model=name, device=info.device, dtype=info.dtype, why=info.why)
        producer = Producer(info.device, info.backend, info.dtype)
        return LoadedModel(backend, producer, source.described.prompts, self.spaces(name))

    def loaded(self) -> list[LoadedModel]:
        """Those in memory."""
        return list(self._loaded.values())
