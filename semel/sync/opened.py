"""A sync for the length of one command: its ledger, its sink, and its lease."""

import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

from semel.db import Database
from semel.errors import BadInputError, ConflictError
from semel.repeating import Repeating
from semel.settings import Settings
from semel.sync.addresses import lacks_password
from semel.sync.ledger import Collection, Ledger, Sync
from semel.sync.sinks import Layout, Sink, SinkCollection, index_name, open_sink, shown_sink
from semel.sync.sources import shown_source
from semel.values.sync import ChunkOptions, SyncEntry

LEASE_S = 60.0
"""A run that is silent for this long has ended; others may start."""


@dataclass(frozen=True)
class OpenedSync:
    """What commands use of a sync.

    Attributes:
        ledger: which writes for the owner of the lease only.
    """

    name: str
    entry: SyncEntry
    ledger: Ledger
    sink: Sink

    @property
    def sync(self) -> Sync:
        """Its row in the ledger."""
        return self.ledger.sync(self.name)

    def collections(self) -> list[Collection]:
        """Its collections with their sizes, the oldest first."""
        return self.ledger.collections(self.name)

    def serving(self) -> Collection:
        """The collection that answers. Raises ConflictError if there is none yet."""
        serving = self.serving_id
        found = next((each for each in self.collections() if each.id == serving), None)
        if found is None:
            raise ConflictError(f"sync {self.name!r} has no index yet: run 'semel sync run {self.name}'")
        return found

    @property
    def serving_id(self) -> int | None:
        """The id of the collection that answers; None if there is none yet."""
        return next((each.serving for each in self.ledger.syncs() if each.name == self.name), None)

    def open(self, collection: Collection, *, make: bool = False) -> SinkCollection:
        """The rows of a collection, in the sink. Raises UnavailableError, and NotFoundError as of `Sink.open`."""
        return self.sink.open(collection.name, Layout(collection.dim, self.entry.payload), make=make)

    def collection_name(self, fingerprint: bytes) -> str:
        """The name of the collection for a model, in the sink."""
        return f"{index_name(self.entry.sink)}_{fingerprint.hex()[:8]}"


def entry_of(settings: Settings, ledger: Ledger, name: str) -> SyncEntry:
    """The sync of this name in semel.toml; or as it was run without one, if its sink has no password.

    Raises:
        BadInputError: neither is there.
    """
    if name in settings.syncs:
        return settings.syncs[name]
    ran = next((each for each in ledger.syncs() if each.name == name), None)
    if ran is None:
        known = ", ".join(settings.syncs) or "none"
        raise BadInputError(f"there is no sync {name!r}: semel.toml has no [syncs.{name}] (it has: {known})")
    if lacks_password(ran.source) or lacks_password(ran.sink):
        raise BadInputError(
            f"sync {name!r} was run with a password, which is not kept: write its source and sink into semel.toml, as "
            f"[syncs.{name}]"
        )
    collections = ledger.collections(name)
    kept = next((each for each in collections if each.id == ran.serving), collections[-1] if collections else None)
    if kept is None:
        return SyncEntry(ran.source, ran.sink)
    chunk = ChunkOptions(**kept.spec.get("chunk", {}))
    return SyncEntry(ran.source, ran.sink, model=kept.model, chunk=chunk, payload=tuple(kept.spec.get("payload", ())))


@contextmanager
def reading(settings: Settings, db: Database, name: str) -> Iterator[OpenedSync]:
    """Open a sync without its lease.

    Raises:
        NotFoundError: it never ran.
        ConflictError: it was run with another sink.
        UnavailableError, BadInputError: the sink cannot be opened.
    """
    ledger = Ledger(db)
    entry = entry_of(settings, ledger, name)
    _check_sink(ledger, name, entry)
    with closing(_sink(settings, entry)) as sink:
        yield OpenedSync(name, entry, ledger, sink)


@contextmanager
def planning(settings: Settings, db: Database, name: str, entry: SyncEntry) -> Iterator[OpenedSync]:
    """Open a sync for a plan, which records nothing. Raises as `reading`, but for a sync that never ran."""
    ledger = Ledger(db)
    if ledger.collections(name):
        _check_sink(ledger, name, entry)
    with closing(_sink(settings, entry)) as sink:
        yield OpenedSync(name, entry, ledger, sink)


@contextmanager
def exclusively(settings: Settings, db: Database, name: str, entry: SyncEntry | None = None) -> Iterator[OpenedSync]:
    """Open a sync with its lease, which is renewed until the end of the block.

    Args:
        entry: what it follows; it is recorded in the ledger if it is new. None for a sync that ran before.

    Raises:
        NotFoundError: it never ran.
        ConflictError: another run holds the lease, or the sync has another sink.
        UnavailableError, BadInputError: the sink cannot be opened.
    """
    ledger = writing_ledger(db)
    if entry is not None:
        ledger.open(name, shown_source(entry.source), shown_sink(entry.sink))
    else:
        entry = entry_of(settings, ledger, name)
    _check_sink(ledger, name, entry)
    with leased(ledger, name), closing(_sink(settings, entry)) as sink:
        yield OpenedSync(name, entry, ledger, sink)


def writing_ledger(db: Database) -> Ledger:
    """A ledger that can take leases."""
    return Ledger(db, owner=uuid.uuid4().hex)


@contextmanager
def leased(ledger: Ledger, name: str) -> Iterator[None]:
    """Hold the lease of a sync, and renew it until the end of the block. Raises SyncBusyError."""
    if not ledger.take_lease(name, seconds=LEASE_S):
        raise SyncBusyError(name)
    renewing = Repeating("sync-lease", lambda: ledger.take_lease(name, seconds=LEASE_S), every_s=LEASE_S / 4)
    renewing.start()
    try:
        yield
    finally:
        renewing.stop()
        ledger.release(name)


def _check_sink(ledger: Ledger, name: str, entry: SyncEntry) -> None:
    """Raises NotFoundError if the sync never ran, and ConflictError if it ran with another sink."""
    kept = ledger.sync(name).sink
    if kept != shown_sink(entry.sink):
        raise ConflictError(
            f"sync {name!r} writes to {kept}, not to {shown_sink(entry.sink)}; give the new index a sync of its own, "
            f"or end the old one: 'semel sync drop {name} --forget' leaves its index as it is"
        )


def _sink(settings: Settings, entry: SyncEntry) -> Sink:
    return open_sink(entry.sink, qdrant_api_key=settings.qdrant_api_key.get_secret_value() or None)


class SyncBusyError(ConflictError):
    """Another run of the same sync is under way."""

    code = "sync_busy"

    def __init__(self, name: str) -> None:
        super().__init__(
            f"another run of sync {name!r} is under way (one that was killed blocks the name for {LEASE_S:.0f} s); "
            f"'semel sync status {name}' shows it"
        )


class TooManyDeletedError(ConflictError):
    """The source has shrunk by more than a run may delete."""

    code = "too_many_deleted"
