"""`semel sync check`, `cutover`, `rollback` and `drop`."""

import json
from dataclasses import replace

import typer

from semel.cache.store import VectorStore
from semel.cli.work.syncing import INCOMPLETE, Wanted, run_all, sync_settings
from semel.errors import NotFoundError
from semel.sync.checking import Checked, Checker
from semel.sync.connecting import database
from semel.sync.opened import exclusively, leased, reading, writing_ledger
from semel.sync.switching import cutover, drop, forget, rollback


def check_sync(name: str, wanted: Wanted, *, sample: int | None, repair: bool, collection: str | None) -> int:
    """Check a collection, mend it if that is wanted, and check it again. Returns the exit code.

    Args:
        collection: its name; None for the one that answers.
    """
    checked, model = _checked(name, collection, sample=sample, repair=repair)
    _show(checked, as_json=wanted.as_json and (checked.is_right or not repair))
    if repair and not checked.is_right:
        code = run_all([(name, None)], replace(wanted, model=model, as_json=False), dry_run=False)
        checked, _ = _checked(name, collection, sample=sample, repair=False)
        _show(checked, as_json=wanted.as_json)
        return code or (0 if checked.is_right else INCOMPLETE)
    return 0 if checked.is_right else INCOMPLETE


def _checked(name: str, collection: str | None, *, sample: int | None, repair: bool) -> tuple[Checked, str]:
    """What the check found, and the model of the collection."""
    settings = sync_settings()
    opening = exclusively if repair else reading
    with database(settings) as db, opening(settings, db, name) as opened:
        named = (each for each in opened.collections() if each.name == collection)
        chosen = opened.serving() if collection is None else next(named, None)
        if chosen is None:
            raise NotFoundError("collection", str(collection))
        checker = Checker(opened, chosen, VectorStore(db, dtype=settings.vector_dtype), sample=sample)
        checked = checker.check()
        if repair and not checked.is_right:
            checker.repair()
        return checked, chosen.model


def _show(checked: Checked, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(checked.as_json()))
        return
    for line in checked.lines():
        typer.echo(line, err=True)


def switch(name: str, what: str) -> str:
    """Cut over to the new collection, or roll back to the old one. Returns what happened, in a sentence."""
    settings = sync_settings()
    with database(settings) as db, exclusively(settings, db, name) as opened:
        store = VectorStore(db, dtype=settings.vector_dtype)
        now = cutover(opened, store) if what == "cutover" else rollback(opened, store)
        return f"{name}: {now.name} ({now.model}, {now.documents:,} documents) answers now"


def drop_sync(name: str) -> list[str]:
    """Delete a sync with its collections. Returns their names."""
    settings = sync_settings()
    with database(settings) as db, exclusively(settings, db, name) as opened:
        return drop(opened)


def forget_sync(name: str) -> list[str]:
    """Forget a sync, and leave its collections as they are. Returns their names."""
    with database(sync_settings()) as db:
        ledger = writing_ledger(db)
        ledger.sync(name)  # an unknown one is an error
        with leased(ledger, name):
            return forget(ledger, name)
