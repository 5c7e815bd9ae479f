"""Another model's collection takes the place of the one that answers, and back; and the end of a sync."""

from semel.cache.store import VectorStore
from semel.errors import ConflictError
from semel.sync.checking import DEFAULT_SAMPLE, Checker, check_before_cutover
from semel.sync.ledger import Collection, Ledger
from semel.sync.opened import OpenedSync
from semel.values.sync import share_of


def cutover(opened: OpenedSync, store: VectorStore, name: str | None = None) -> Collection:
    """Let another collection answer, after its counts and a sample of its vectors agree.

    The old one stays for as long as the sync keeps it.

    Args:
        name: of the collection, in the sink; None for the one that was filled last.

    Raises:
        ConflictError: there is no other collection, it is not filled, it is not right, or it has far fewer documents.
    """
    serving = opened.serving()
    waiting = [each for each in _others(opened, serving, name) if each.retired_at is None]
    if not waiting:
        raise ConflictError(
            f"sync {opened.name!r} has no second collection: fill one with 'semel sync run {opened.name} --model NEW'"
        )
    new = max(waiting, key=lambda each: (each.filled_at or 0.0, each.id))
    if new.filled_at is None:
        raise ConflictError(f"{new.name} is not filled yet: run 'semel sync run {opened.name} --model {new.model}'")
    if new.documents < serving.documents * (1 - share_of(opened.entry.max_delete)):
        raise ConflictError(
            f"{new.name} has {new.documents:,} documents, and {serving.name}, which answers, has "
            f"{serving.documents:,}: run 'semel sync run {opened.name} --model {new.model}' and look at what failed. "
            "If the others are really gone, set max_delete of the sync"
        )
    return _switch(opened, new, store)


def rollback(opened: OpenedSync, store: VectorStore, name: str | None = None) -> Collection:
    """Let the collection answer that answered before; the documents in it are those of its last run.

    Args:
        name: of the collection, in the sink; None for the one that answered last.

    Raises:
        ConflictError: there is none any more.
    """
    serving = opened.serving()
    filled = [each for each in _others(opened, serving, name) if each.filled_at is not None]
    if not filled:
        raise ConflictError(
            f"sync {opened.name!r} has no earlier collection to go back to: it keeps one for {opened.entry.keep} after "
            "a cutover"
        )
    return _switch(opened, max(filled, key=lambda each: (each.retired_at or 0.0, each.filled_at or 0.0)), store)


def _others(opened: OpenedSync, serving: Collection, name: str | None) -> list[Collection]:
    return [each for each in opened.collections() if each.id != serving.id and name in (None, each.name)]


def _switch(opened: OpenedSync, new: Collection, store: VectorStore) -> Collection:
    check_before_cutover(Checker(opened, new, store, sample=DEFAULT_SAMPLE).check())
    opened.sink.serve(new.name)
    opened.ledger.mark_serving(new)
    return next(each for each in opened.collections() if each.id == new.id)


def forget(ledger: Ledger, name: str) -> list[str]:
    """Delete what the ledger knows of a sync, and leave its sink as it is. Returns the names of the collections.

    Args:
        ledger: that holds the lease of the sync.
    """
    collections = ledger.collections(name)
    for each in collections:
        ledger.forget_collection(each)
    ledger.forget_sync(name)
    return [each.name for each in collections]


def drop(opened: OpenedSync) -> list[str]:
    """Delete a sync with all its collections. Its vectors stay in the cache. Returns the names of the collections."""
    for each in opened.collections():
        opened.sink.drop(each.name)
    return forget(opened.ledger, opened.name)
