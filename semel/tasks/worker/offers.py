"""The models that a worker offers: those it serves now, and those it withdrew and will offer again later."""

import time
from collections.abc import Mapping

from semel.values.model import Space

REFUSED_S = 300.0
"""A model that could not be loaded is offered again after this time, because memory may be free by then."""


class Offers:
    """Model → prompt name → space, for the models that this worker serves. Any thread may read it."""

    def __init__(self) -> None:
        self._served: dict[str, dict[str, Space]] = {}
        self._withdrawn: dict[str, tuple[float, dict[str, Space]]] = {}

    def serve(self, served: Mapping[str, dict[str, Space]]) -> None:
        """Offer these models from now on."""
        self._served = dict(served)

    @property
    def models(self) -> list[str]:
        """The names of the models that are served now."""
        return list(self._served)

    @property
    def spaces(self) -> list[Space]:
        """The vector spaces that are served now."""
        return [space for by_prompt in self._served.values() for space in by_prompt.values()]

    def space(self, model: str, prompt_name: str = "") -> Space:
        """The space of one prompt of a served model. Raises KeyError when it is not served."""
        return self._served[model][prompt_name]

    def withdraw(self, model: str, fingerprint: bytes) -> None:
        """Stop offering a model that cannot be loaded, unless it is served with another fingerprint by now."""
        served = dict(self._served)
        if any(space.fingerprint == fingerprint for space in served.get(model, {}).values()):
            self._withdrawn[model] = (time.monotonic(), served.pop(model))
            self._served = served  # a new dictionary: other threads may be iterating over the old one

    def renew(self) -> None:
        """Offer the models again that were withdrawn more than `REFUSED_S` ago."""
        for model, (at, spaces) in list(self._withdrawn.items()):
            if time.monotonic() - at > REFUSED_S:
                del self._withdrawn[model]
                self._served = {**self._served, model: spaces}
