"""The choice of the device pool that gets a piece of work."""

from dataclasses import dataclass

from semel.cache.catalog import Catalog
from semel.errors import UnavailableError, UnknownDeviceError
from semel.tasks.fleet.pools import best_pool, waits_for_worker
from semel.tasks.fleet.roster import Roster
from semel.values.device import KINDS, UseCase, device_kind
from semel.values.model import Space


@dataclass(frozen=True)
class Route:
    """The device pool that gets a piece of work.

    Attributes:
        device: the kind of device.
        why: the reason for this pool, for people to read.
        waits: no live worker of the pool serves the vector space at present, so the work waits for one.
        workers: live workers of the pool that serve the vector space.
    """

    device: str
    why: str
    waits: bool = False
    workers: int = 0


class Router:
    """Picks the device pool for a vector space.

    Args:
        use_case: selects the order in which pools are preferred, unless they were measured.
    """

    def __init__(self, roster: Roster, catalog: Catalog, *, use_case: UseCase = "auto") -> None:
        self._roster = roster
        self._catalog = catalog
        self._use_case = use_case

    def route(self, space: Space, *, wanted: str = "auto", must_live: bool = False) -> Route:
        """The pool for this space; its workers serve exactly its fingerprint.

        Args:
            wanted: a kind of device, or `auto` for the best one with a live worker.
            must_live: raise if no live worker serves the space; otherwise the work waits for one.

        Raises:
            UnavailableError: `must_live`, and no live worker serves the space; or Redis does not answer.
            UnknownDeviceError: `wanted` is not a kind of device.
            UnknownModelError: no worker has ever served this model.
        """
        wanted, model, served = device_kind(wanted), space.model, space.published.fingerprint
        if wanted not in ("auto", *KINDS):
            raise UnknownDeviceError(f"unknown device {wanted!r} (known: auto, {', '.join(KINDS)})")
        live = [w for w in self._roster.recently_live() if w.serves(model, served)]
        if not live:  # a worker may have started since the roster was last read, up to a second ago
            live = [w for w in self._roster.live() if w.serves(model, served)]
        if wanted != "auto":
            live = [w for w in live if device_kind(w.device) == wanted]
        if live:
            kind, why = best_pool(live, model=model, use_case=self._use_case)
            count = sum(device_kind(w.device) == kind for w in live)
            reason = "requested" if wanted != "auto" else why
            why = f"{kind}: {reason}, {count} live worker{'s' if count > 1 else ''} with {model}"
            return Route(kind, why, workers=count)
        device = device_kind(self._catalog.find(model)[1]) if wanted == "auto" else wanted
        if must_live:
            raise UnavailableError(
                f"no live worker serves {model!r}{'' if wanted == 'auto' else f' on {wanted}'}; "
                f"start one: semel worker --device {device}"
            )
        why = waits_for_worker(f"{device}: no live worker serves {model}")
        return Route(device, why, waits=True)
