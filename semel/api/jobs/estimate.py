"""Estimates a job before it is submitted: how many of its texts are cached, and how long the rest would take."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from semel.api.jobs.ingest import Ingest
from semel.api.jobs.submission import destination
from semel.api.jobs.wire import BadRow, EstimateObject, JobRequest
from semel.api.services import Services
from semel.cache.store import VectorStore
from semel.settings import Settings
from semel.tasks.fleet.roster import Roster
from semel.tasks.jobs.rows import NO_KEY, NewChunk
from semel.tasks.queue.backlog import Backlog
from semel.tasks.queue.router import Route
from semel.values.device import device_kind
from semel.values.model import Space
from semel.values.text import Input, Lane, Pair

_PREVIEW_ROWS = 5
_PREVIEW_CHARACTERS = 300
_BAD_ROWS = 5

_Digests = npt.NDArray[np.uint64]
"""The first eight bytes of each key: enough to count distinct texts, at 8 MB for a million of them."""


class EstimateIngest(Ingest[EstimateObject]):
    """Counts what a job with these rows would do; nothing is stored or computed.

    Args:
        route: the device pool that the job would go to.
        text_field: the field of a row that holds the text.
    """

    def __init__(
        self,
        settings: Settings,
        space: Space,
        route: Route,
        *,
        vectors: VectorStore,
        roster: Roster,
        backlog: Backlog,
        text_field: str,
    ) -> None:
        super().__init__(settings, space, key_base=space.key_base, text_field=text_field)
        self._route = route
        self._vectors = vectors
        self._roster = roster
        self._backlog = backlog
        self._all: list[_Digests] = []
        self._missing: list[_Digests] = []
        self._rows = self._failed = self._cached = 0
        self._preview: list[Input] = []
        self._bad: list[BadRow] = []

    @override
    def take(self, chunks: Sequence[NewChunk]) -> None:
        for chunk in chunks:
            keys = [key for key in chunk.keys if key != NO_KEY]
            present = self._vectors.present(list(set(keys)))
            missing = [key for key in keys if key not in present]
            self._rows += len(chunk.keys)
            self._failed += len(chunk.errors)
            self._cached += len(keys) - len(missing)
            self._all.append(_digests(keys))
            self._missing.append(_digests(missing))
            room = _PREVIEW_ROWS - len(self._preview)
            self._preview += [text for i, text in enumerate(chunk.texts) if i not in chunk.errors][:room]
            bad = [BadRow(index=chunk.first_index + i, message=e.message) for i, e in chunk.errors.items()]
            self._bad += bad[: _BAD_ROWS - len(self._bad)]

    @override
    def end(self) -> EstimateObject:
        to_compute = _distinct(self._missing)
        cards = self._roster.recently_live()
        able = [card for card in cards if card.serves(self.space.model, self.space.fingerprint)]
        rate = sum(card.texts_per_s for card in able if device_kind(card.device) == self._route.device)
        return EstimateObject(
            model=self.space.model,
            texts=self._rows,
            distinct=_distinct(self._all),
            cached=self._cached,
            to_compute=to_compute,
            failed=self._failed,
            device=self._route.device,
            why=self._route.why,
            queue_s=self._backlog.seconds(Lane.BULK, self._route.device),
            compute_s=0.0 if not to_compute else (to_compute / rate if rate else None),
            preview=[_preview(item) for item in self._preview],
            bad_rows=self._bad,
        )


@contextmanager
def estimating(services: Services, request: JobRequest) -> Iterator[Ingest[EstimateObject]]:
    """An ingest that estimates a job instead of running it.

    Raises:
        SemelError: whatever `destination` raises, so that you learn it before you upload the job.
    """
    services.fleet.ping()
    space, route = destination(services, request)
    yield EstimateIngest(
        services.settings,
        space,
        route,
        vectors=services.stores.vectors,
        roster=services.fleet.roster,
        backlog=services.fleet.backlog,
        text_field=request.text_field,
    )


def _digests(keys: Sequence[bytes]) -> _Digests:
    return np.frombuffer(b"".join(key[:8] for key in keys), np.uint64)


def _distinct(digests: Sequence[_Digests]) -> int:
    return len(np.unique(np.concatenate(digests))) if digests else 0


def _preview(item: Input) -> dict[str, str]:
    fields = item._asdict() if isinstance(item, Pair) else {"text": item}
    return {name: text[:_PREVIEW_CHARACTERS] for name, text in fields.items()}
