"""One run of a sync: plan, write, delete, and let the first collection answer."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from semel.chunking import Chunker
from semel.errors import ConflictError, NotFoundError, SemelError
from semel.sync.drafting import Drafter
from semel.sync.embedding import Embedding
from semel.sync.ledger import Collection
from semel.sync.opened import OpenedSync, TooManyDeletedError
from semel.sync.planning import Planner
from semel.sync.report import Plan, Report
from semel.sync.sinks import SinkCollection
from semel.sync.sources import Source
from semel.sync.spec import Spec
from semel.sync.spool import Spool
from semel.sync.writing import Writer
from semel.values.sync import seconds_of, share_of

_UNKNOWN = -1
"""The id of a collection that the ledger does not have: a dry run plans one, and records nothing."""

_RECORD_S = 2.0
"""How often the ledger gets the state of a run, for the page."""


@dataclass(frozen=True)
class RunOptions:
    """How a run goes.

    Attributes:
        max_delete: a percentage; None for that of the sync's entry.
        dry_run: stop after the plan.
        on_planned: called with the plan, before anything is written.
        on_progress: called with what is done, such as `listing` or `writing`, the number, and the total if it is known.
    """

    max_delete: str | None = None
    dry_run: bool = False
    on_planned: Callable[[Plan], None] = lambda _plan: None
    on_progress: Callable[[str, int, int | None], None] = lambda _what, _done, _total: None


def run(opened: OpenedSync, source: Source, embedding: Embedding, chunker: Chunker, options: RunOptions) -> Report:
    """Bring the collection of the embedding's model in step with the source.

    Args:
        opened: the sync, with its lease.
        chunker: splits by the tokens of the model.

    Raises:
        TooManyDeletedError: the source shrank by more than is allowed; nothing was written.
        ConflictError: the lease was lost.
        BadInputError, UnavailableError: the source cannot be read, or the sink does not answer.
    """
    started = time.perf_counter()
    state = _begun(opened, embedding, dry_run=options.dry_run)
    report, recorded = state.report, state.recorded
    try:
        _run(opened, source, embedding, chunker, options, state)
    except BaseException as error:
        report.seconds = time.perf_counter() - started
        report.error = str(error) or type(error).__name__
        recorded.end("refused" if isinstance(error, TooManyDeletedError) else "failed")
        raise
    report.seconds = time.perf_counter() - started
    recorded.end("incomplete" if report.failed else "done")
    return report


@dataclass(frozen=True)
class _State:
    """What the steps of a run share.

    Attributes:
        rows: the collection in the sink; None if it is not there yet.
        was_cut_off: an earlier run may not have finished the collection.
    """

    collection: Collection
    rows: SinkCollection | None
    spec: Spec
    report: Report
    recorded: "_Recorded"
    was_cut_off: bool


def _begun(opened: OpenedSync, embedding: Embedding, *, dry_run: bool) -> _State:
    """Find or make the collection for a vector space, and compare what the ledger and the sink have of it.

    Raises:
        ConflictError: the sink has rows of which the ledger knows nothing.
    """
    spec = Spec.of(opened.entry)
    collection = _collection(opened, embedding, spec, dry_run=dry_run)
    report = Report(Plan(), collection.name, embedding.model)
    was_cut_off = _was_cut_off(opened, collection)
    recorded = _Recorded(opened, collection, report, dry_run=dry_run)
    try:
        rows = opened.open(collection)
    except NotFoundError:
        rows = None
    if rows is None and collection.documents:
        report.plan.notes.append(f"the sink has lost {collection.name}: every document is written again")
        if not dry_run:
            opened.ledger.forget_documents(collection)
        collection = replace(collection, id=_UNKNOWN if dry_run else collection.id, documents=0)
    elif rows is not None and not collection.documents and any(ids for ids, _ in rows.read()):
        error = ConflictError(
            f"the sink has {collection.name} already, of which this ledger knows nothing: another database of semel "
            "may follow it. Give the index another name, or delete that collection with the sink's own tools"
        )
        report.error = str(error)
        recorded.end("refused")
        raise error
    return _State(collection, rows, spec, report, recorded, was_cut_off)


def _run(
    opened: OpenedSync, source: Source, embedding: Embedding, chunker: Chunker, options: RunOptions, state: _State
) -> None:
    collection, report = state.collection, state.report
    documents = opened.ledger.within(collection)
    drafter = Drafter(chunker, embedding.key_base, opened.entry.payload)
    differences = state.spec.differences(collection.spec) if collection.documents else []
    with Spool() as spool:
        planner = Planner(source, documents, drafter, embedding.forecast(), read_all=bool(differences))
        report.plan.notes += [*_switch_notes(opened, collection), *differences]
        planner.plan(report.plan, report, spool, on_listed=lambda count: options.on_progress("comparing", count, None))
        if report.plan.seconds is None:
            report.plan.seconds = _forecast_s(opened, collection, report.plan.to_compute)
        options.on_planned(report.plan)
        if options.dry_run:
            return
        _check_deletions(report.plan, options.max_delete or opened.entry.max_delete)
        if differences:
            opened.ledger.mark_changing(collection)
        rows = state.rows or opened.open(collection, make=True)
        writer = Writer(opened.name, documents, rows, embedding, source, drafter)

        def written() -> None:
            options.on_progress("writing", report.done, report.plan.chunks)
            state.recorded.now_and_then()

        writer.write(spool.drafts(), report, on_written=written)
    # What moved stays at its old place if it could not be written at its new one.
    gone = [each for each in planner.deleted if planner.contents[each] not in writer.failed_contents]
    writer.delete(gone, report, on_written=written)
    if state.was_cut_off or report.written or report.updated or report.removed:
        rows.finish()
    documents.set_versions(planner.touched)
    opened.ledger.mark_filled(collection, state.spec.as_json())
    _serve_first(opened, collection, report)
    drop_outdated(opened)


def _was_cut_off(opened: OpenedSync, collection: Collection) -> bool:
    """Whether the last run that wrote to a collection did not come to its end."""
    runs = opened.ledger.runs(opened.name, limit=100)
    wrote = (run for run in runs if run.collection_id == collection.id and run.outcome != "refused")
    last = next(wrote, None)
    return last is None or last.outcome not in ("done", "incomplete")


def _collection(opened: OpenedSync, embedding: Embedding, spec: Spec, *, dry_run: bool) -> Collection:
    """The collection for a vector space, recorded if it is new and this is no dry run."""
    mine = (each for each in opened.collections() if each.fingerprint == embedding.fingerprint)
    found = next(mine, None)
    if found is not None:
        return found
    name, fingerprint = opened.collection_name(embedding.fingerprint), embedding.fingerprint
    known: dict[str, Any] = {
        "model": embedding.model,
        "fingerprint": fingerprint,
        "dim": embedding.dim,
        "spec": spec.as_json(),
    }
    if dry_run:
        return Collection(_UNKNOWN, opened.name, name, created_at=0.0, filled_at=None, retired_at=None, **known)
    number = opened.ledger.add_collection(opened.name, name, **known)
    return next(each for each in opened.collections() if each.id == number)


def _switch_notes(opened: OpenedSync, collection: Collection) -> list[str]:
    serving = opened.serving_id
    old = next((each for each in opened.collections() if each.id == serving and each.id != collection.id), None)
    if old is None:
        return []
    files = " with other files" if old.model == collection.model else ""
    return [
        f"model {collection.model}{files} fills {collection.name} while {old.name} ({old.model}) answers: "
        f"'semel sync cutover {opened.name}' switches"
    ]


def _check_deletions(plan: Plan, max_delete: str) -> None:
    if plan.shrinks_by > share_of(max_delete):
        raise TooManyDeletedError(
            f"the source has lost {plan.deleted - plan.moved:,} of {plan.known:,} documents "
            f"({100 * plan.shrinks_by:.0f} %), and a run may delete {max_delete} of them: nothing was written. If they "
            "are really gone, allow it: --max-delete 100%"
        )


def _forecast_s(opened: OpenedSync, collection: Collection, to_compute: int) -> float | None:
    """Seconds to compute texts at the rate of the last run that computed many for this collection."""
    for each in opened.ledger.runs(opened.name, limit=20):
        report = each.report
        enough = report.get("computed", 0) >= 20 and report.get("embedding_s", 0) > 0
        if enough and each.collection_id == collection.id:
            return float(to_compute * report["embedding_s"] / report["computed"])
    return None if to_compute else 0.0


def _serve_first(opened: OpenedSync, collection: Collection, report: Report) -> None:
    """Let the collection answer if none does yet, or if the sink forgot which one does."""
    serving = opened.serving_id
    if serving in (None, collection.id):
        if opened.sink.serving() != collection.name:
            opened.sink.serve(collection.name)
        if serving is None:
            opened.ledger.mark_serving(collection)
    report.serves = serving in (None, collection.id)


def drop_outdated(opened: OpenedSync) -> None:
    """Drop the collections that were replaced longer ago than the sync keeps them."""
    now = opened.ledger.now()
    for each in opened.collections():
        if each.retired_at is not None and each.retired_at < now - seconds_of(opened.entry.keep):
            opened.sink.drop(each.name)
            opened.ledger.forget_collection(each)


class _Recorded:
    """The run in the ledger; a dry run is not recorded."""

    def __init__(self, opened: OpenedSync, collection: Collection, report: Report, *, dry_run: bool) -> None:
        self._ledger = opened.ledger
        self._report = report
        self._id = None if dry_run else self._ledger.begin_run(opened.name, collection.id, report.as_json())
        self._next = 0.0

    def now_and_then(self) -> None:
        """Record how far the run is, if it was not recorded just now."""
        if self._id is not None and time.monotonic() >= self._next:
            self._next = time.monotonic() + _RECORD_S
            self._ledger.record_run(self._id, "running", self._report.as_json())

    def end(self, outcome: str) -> None:
        """Record how the run ended, if the database answers."""
        if self._id is None:
            return
        try:
            self._ledger.record_run(self._id, outcome, self._report.as_json())
        except SemelError:
            if outcome in ("done", "incomplete"):
                raise
