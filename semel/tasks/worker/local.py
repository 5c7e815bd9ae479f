"""The sender of `semel embed --local`: it computes in this process, without a queue."""

from collections.abc import Mapping

from semel.tasks.worker.embed import Embedder
from semel.tasks.worker.models import LoadedModels
from semel.values.model import Space
from semel.values.text import Input, Lane
from semel.values.vectors import Computed


class LocalSender:
    """Computes missing keys in this process."""

    def __init__(self, models: LoadedModels, embedder: Embedder) -> None:
        self._models = models
        self._embedder = embedder

    def compute(self, space: Space, missing: Mapping[bytes, Input], *, lane: Lane) -> Computed:
        """Compute `missing` (key → text) into the cache.

        Raises:
            UnknownModelError: no model has this name.
            ModelLoadError: the model cannot be loaded here.
            BackendError: the device is lost.
            StorageFullError: the database has no room.
        """
        with self._models.using(space.model) as model:
            return self._embedder.compute(model, space.prompt_name, missing, lane=lane)
