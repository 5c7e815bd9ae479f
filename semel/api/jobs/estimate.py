"""Estimates a job before it is submitted: how many of its texts are cached, and how long the rest would take."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, Field
from typing_extensions import override

from semel.api.jobs.ingest import Ingest
from semel.api.jobs.submission import destination
from semel.api.jobs.wire import JobRequest
from semel.api.services import Services
from semel.cache.codec import DTYPES
from semel.cache.store import VectorStore
from semel.settings import Settings
from semel.tasks.fleet.roster import Roster
from semel.tasks.jobs.rows import NO_KEY, NewChunk
from semel.tasks.queue.backlog import Backlog
from semel.tasks.queue.router import Route
from semel.values.device import device_kind
from semel.values.model import Space, base_name
from semel.values.read_counts import ReadCounts
from semel.values.text import Input, Lane, Pair, size_of

_PREVIEW_ROWS = 5
_PREVIEW_CHARACTERS = 300
_BAD_ROWS = 5

_CHARACTERS_PER_TOKEN = 4
"""English text has about so many; the API has no tokenizer, so tokens are estimated."""

_SPECIAL_TOKENS = 2

_ROW_BYTES = 150
"""What a database takes for a row in addition to its numbers: 125 to 168 bytes, measured on SQLite."""

_Digests = npt.NDArray[np.uint64]
"""The first eight bytes of each key: enough to count distinct texts, at 8 MB for a million of them."""


class BadRow(BaseModel):
    """A row that would fail; `index` counts from 0."""

    index: int
    message: str


class EstimateObject(BaseModel):
    """What a job would do. An estimate stores and computes nothing."""

    object: Literal["estimate"] = "estimate"
    model: str
    texts: int
    distinct: int
    cached: int = Field(description="Texts whose vectors are in the cache, repetitions included.")
    to_compute: int = Field(description="Distinct texts whose vectors are missing.")
    failed: int = Field(description="Rows that cannot be embedded: empty, too long, or not a string.")
    device: str
    why: str
    queue_s: float = Field(description="Seconds of work that already wait for that device.")
    tokens: int = Field(description="About the tokens that the model reads in the missing texts: four characters each.")
    truncated: int = Field(description="About the rows that are longer than the model's limit.")
    unread_share: float = Field(description="About the share of all tokens that is cut off, 0 to 1.")
    compute_s: float | None = Field(
        description="Seconds to compute the missing texts at the rate of this model; null while it is not measured."
    )
    disk_bytes: int | None = Field(description="About what their vectors take in the database; null if sparse.")
    cost: float | None = Field(description="Of the tokens, if the model has a price_per_million_tokens.")
    preview: list[dict[str, str]] = Field(description="The first texts or pairs, cut to 300 characters.")
    bad_rows: list[BadRow] = Field(description="The first rows that would fail.")


class EstimateIngest(Ingest[EstimateObject]):
    """Counts what a job with these rows would do; nothing is stored or computed.

    Args:
        route: the device pool that the job would go to.
        price: of a million tokens, as semel.toml has it; None if it has none.
        text_field, strict: as of `Ingest`.
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
        price: float | None,
        text_field: str,
        strict: bool,
    ) -> None:
        super().__init__(settings, space, key_base=space.key_base, text_field=text_field, strict=strict)
        self._route = route
        self._vectors = vectors
        self._roster = roster
        self._backlog = backlog
        self._price = price
        self._number_bytes = DTYPES[vectors.dtype_of(space)].itemsize
        self._tokens: list[npt.NDArray[np.int64]] = []  # of each missing text, about
        self._all: list[_Digests] = []
        self._missing: list[_Digests] = []
        self._rows = self._failed = self._cached = 0
        self._read = ReadCounts()
        self._preview: list[Input] = []
        self._bad: list[BadRow] = []

    @override
    def take(self, chunks: Sequence[NewChunk]) -> None:
        for chunk in chunks:
            keys = [key for key in chunk.keys if key != NO_KEY]
            present = self._vectors.present(list(set(keys)))
            missing = {i: key for i, key in enumerate(chunk.keys) if key != NO_KEY and key not in present}
            self._rows += len(chunk.keys)
            self._failed += len(chunk.errors)
            self._cached += len(keys) - len(missing)
            self._all.append(_digests(keys))
            self._missing.append(_digests(list(missing.values())))
            whole = _tokens_of([size_of(text) for text in chunk.texts])
            read = np.minimum(whole, self.space.max_tokens)
            self._tokens.append(read[list(missing)])
            self._read += ReadCounts(int((whole > read).sum()), int(read.sum()), int((whole - read).sum()))
            room = _PREVIEW_ROWS - len(self._preview)
            self._preview += [text for i, text in enumerate(chunk.texts) if i not in chunk.errors][:room]
            bad = [BadRow(index=chunk.first_index + i, message=e.message) for i, e in chunk.errors.items()]
            self._bad += bad[: _BAD_ROWS - len(self._bad)]

    def _rate(self) -> float:
        """Tokens per second of this model on all workers of the pool; 0 if it was not measured yet."""
        model, cards = self.space.model, self._roster.recently_live()
        able = [card for card in cards if card.serves(model, self.space.published.fingerprint)]
        here = [card.rates for card in able if device_kind(card.device) == self._route.device]
        return sum(rates[model].tokens_per_s for rates in here if model in rates)

    def _disk_bytes(self, vectors: int) -> int | None:
        if self.space.kind == "sparse":
            return None
        return vectors * (self.space.dim * self._number_bytes + _ROW_BYTES)

    @override
    def end(self) -> EstimateObject:
        first = _first_of_each(self._missing)
        to_compute, rate = len(first), self._rate()
        tokens = int(np.concatenate(self._tokens)[first].sum())
        return EstimateObject(
            model=self.space.model,
            texts=self._rows,
            distinct=len(_first_of_each(self._all)),
            cached=self._cached,
            to_compute=to_compute,
            failed=self._failed,
            device=self._route.device,
            why=self._route.why,
            queue_s=self._backlog.seconds(Lane.BULK, self._route.device),
            tokens=tokens,
            truncated=self._read.truncated,
            unread_share=round(self._read.unread_share, 3),
            compute_s=0.0 if not to_compute else (tokens / rate if rate else None),
            disk_bytes=self._disk_bytes(to_compute),
            cost=None if self._price is None else tokens / 1e6 * self._price,
            preview=[_preview(item) for item in self._preview],
            bad_rows=self._bad,
        )


def _tokens_of(sizes: Sequence[int]) -> npt.NDArray[np.int64]:
    """About the tokens of texts with these many characters."""
    return np.asarray(sizes, np.int64) // _CHARACTERS_PER_TOKEN + 1 + _SPECIAL_TOKENS


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
        price=_price(services.settings, space.model),
        text_field=request.text_field,
        strict=request.strict,
    )


def _price(settings: Settings, model: str) -> float | None:
    entry = settings.all_models.get(base_name(model))
    return None if entry is None else entry.price_per_million_tokens


def _digests(keys: Sequence[bytes]) -> _Digests:
    return np.frombuffer(b"".join(key[:8] for key in keys), np.uint64)


def _first_of_each(digests: Sequence[_Digests]) -> npt.NDArray[np.int64]:
    """The place of the first of each distinct text."""
    return np.unique(np.concatenate(digests), return_index=True)[1]


def _preview(item: Input) -> dict[str, str]:
    fields = item._asdict() if isinstance(item, Pair) else {"text": item}
    return {name: text[:_PREVIEW_CHARACTERS] for name, text in fields.items()}
