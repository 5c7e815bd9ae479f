"""The sender of `semel embed --local`: it computes in this process, without a queue."""

from collections.abc import Callable, Mapping

from semel.tasks.worker.embed import Embedder, Terms
from semel.tasks.worker.models import LoadedModels
from semel.values.model import Space
from semel.values.text import Input, Lane
from semel.values.vectors import Computed


class LocalSender:
    """Computes missing keys in this process.

    Args:
        settled: called with the number of missing keys and their outcomes so far, whenever there are more.
    """

    def __init__(
        self,
        models: LoadedModels,
        embedder: Embedder,
        *,
        settled: Callable[[int, Computed], None] = lambda _missing, _done: None,
    ) -> None:
        self._models = models
        self._embedder = embedder
        self._settled = settled

    def compute(self, space: Space, missing: Mapping[bytes, Input], *, lane: Lane) -> Computed:
        """Compute `missing` (key → text) into the cache.

        Raises:
            UnknownModelError: no model has this name.
            ModelLoadError: the model cannot be loaded here.
            BackendError: the device is lost.
            StorageFullError: the database has no room.
        """
        terms = Terms(settled=lambda done: self._settled(len(missing), done), keep_vectors=True)
        with self._models.using(space.model) as model:
            return self._embedder.compute(
                model, space.prompt_name, missing, lane=lane, variant=space.variant, terms=terms
            )
