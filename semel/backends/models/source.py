"""A named model: its files, and the vector spaces that they define. Loads no framework.

The fingerprint comes from the files alone, so a run that finds every vector in the cache never imports torch.
"""

from functools import cached_property
from pathlib import Path

from semel.backends.models.digests import Digests
from semel.backends.models.files import ModelFiles
from semel.backends.models.fingerprint import Described, describe
from semel.errors import UnknownModelError
from semel.values.model import ModelEntry


class ModelSource(ModelFiles):
    """A named model and what its files define."""

    @cached_property
    def described(self) -> Described:
        """What the files define, read once. Raises ModelLoadError or BadInputError as `describe`."""
        return describe(self)


def find_model(
    name: str, entries: dict[str, ModelEntry], *, models_dir: Path | None, digests: Digests, fetch: bool = True
) -> ModelSource:
    """Return the model of a name, without looking for its files. Raises UnknownModelError.

    Args:
        name: a key of `entries`.
        entries: the configuration's models.
        models_dir, digests, fetch: as for `ModelFiles`.
    """
    if name not in entries:
        raise UnknownModelError(name, list(entries))
    return ModelSource(name, entries[name], models_dir=models_dir, digests=digests, fetch=fetch)
