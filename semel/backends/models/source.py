"""A named model: its files, and the vector spaces that they describe. Loads no framework.

The fingerprint comes from the files alone, so a run that only meets hits never imports torch.
"""

from functools import cached_property
from pathlib import Path

from semel.backends.models.digests import Digests
from semel.backends.models.files import ModelFiles
from semel.backends.models.fingerprint import Described, describe
from semel.errors import UnknownModelError
from semel.values.model import ModelEntry


class ModelSource(ModelFiles):
    """A named model and what its files describe."""

    @cached_property
    def described(self) -> Described:
        """What the files say, read once. Raises ModelLoadError when they are no sentence-embedding model."""
        return describe(self)


def find_model(name: str, entries: dict[str, ModelEntry], *, models_dir: Path | None, digests: Digests) -> ModelSource:
    """The model of that name. Raises UnknownModelError."""
    if name not in entries:
        raise UnknownModelError(name, list(entries))
    return ModelSource(name, entries[name], models_dir=models_dir, digests=digests)
