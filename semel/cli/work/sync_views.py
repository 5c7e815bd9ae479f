"""`semel sync status` and `semel search`."""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from semel.cli.work.syncing import Wanted, sync_settings
from semel.errors import BadInputError
from semel.sync.connecting import database, embedding
from semel.sync.ledger import Ledger
from semel.sync.opened import reading
from semel.sync.searching import search
from semel.sync.sinks import Match
from semel.sync.states import state_of

_SHOWN_CHARACTERS = 200
"""So much is shown of a chunk that a search found."""


def show_states(name: str | None, *, as_json: bool) -> None:
    """Print the collections and the last runs of one sync, or of all. Raises NotFoundError."""
    settings = sync_settings()
    with database(settings) as db:
        ledger = Ledger(db)
        syncs = ledger.syncs() if name is None else [ledger.sync(name)]
        states = [state_of(ledger, sync) for sync in syncs]
    if as_json:
        typer.echo(json.dumps(states if name is None else states[0], ensure_ascii=False, indent=2))
        return
    if not states:
        typer.echo("no sync has run yet; 'semel sync run NAME' runs one of semel.toml")
    for state in states:
        _show_state(state)


def _show_state(state: dict[str, Any]) -> None:
    console = Console()
    running = "  (a run is under way)" if state["running"] else ""
    console.print(f"{state['name']}: {state['source']} → {state['sink']}{running}", highlight=False, markup=False)
    collections = Table("collection", "model", "state", "documents", "chunks", "in step at")
    for each in state["collections"]:
        counts = (f"{each['documents']:,}", f"{each['chunks']:,}")
        collections.add_row(each["name"], each["model"], each["state"], *counts, _time(each["filled_at"]))
    runs = Table("run", "outcome", "+", "~", "−", "failed", "chunks written", "computed", "seconds")
    for run in state["runs"]:
        report, plan = run["report"], run["report"]["plan"]
        planned = [f"{plan[each]:,}" for each in ("added", "changed", "deleted")]
        done = [f"{report[each]:,}" for each in ("failed", "written", "computed")]
        runs.add_row(_time(run["started_at"]), run["outcome"], *planned, *done, f"{report['seconds']:.1f}")
    console.print(collections)
    console.print(runs)
    last = state["runs"][0]["report"] if state["runs"] else {}
    for document, why in last.get("failures", {}).items():
        console.print(f"  {document}: {why}", highlight=False, markup=False)
    if last.get("error"):
        console.print(f"  the last run stopped: {last['error']}", highlight=False, markup=False)


def _time(unix_s: float | None) -> str:
    return "" if unix_s is None else datetime.fromtimestamp(unix_s).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def search_sync(name: str, question: str, wanted: Wanted, *, k: int, rerank: str | None, where: Sequence[str]) -> None:
    """Print the chunks that are nearest to a question."""
    if not question.strip():
        raise BadInputError("the question is empty")
    settings = wanted.settings()
    with database(settings) as db, reading(settings, db, name) as opened:
        serving = opened.serving()
        with embedding(settings, wanted.place(settings), serving.model, label=name) as model:
            if model.fingerprint != serving.fingerprint:
                raise BadInputError(
                    f"the index was made with other files of model {serving.model!r} than those that it has here: run "
                    f"'semel sync run {name}', which fills a second collection, and 'semel sync cutover {name}'"
                )
            found = search(opened, model, question, k=k, where=_filters(where), rerank=rerank)
    if wanted.as_json:
        typer.echo(json.dumps([_as_json(match) for match in found], ensure_ascii=False))
        return
    for match in found:
        payload = "  ".join(f"{field}={value}" for field, value in match.payload.items() if value not in (None, ""))
        typer.echo(f"{match.score:.3f}  {match.document}#{match.number}  {payload}")
        text = " ".join(match.text.split())
        typer.echo(f"       {text[:_SHOWN_CHARACTERS]}{'…' if len(text) > _SHOWN_CHARACTERS else ''}")
    if not found:
        typer.echo("nothing was found", err=True)


def _filters(where: Sequence[str]) -> dict[str, str]:
    filters = {}
    for each in where:
        field, equals, value = each.partition("=")
        if not equals or not field:
            raise BadInputError(f"--where {each!r} is no filter; write FIELD=VALUE")
        filters[field] = value
    return filters


def _as_json(match: Match) -> dict[str, Any]:
    return {
        "id": str(match.id),
        "document": match.document,
        "chunk": match.number,
        "text": match.text,
        "payload": dict(match.payload),
        "score": match.score,
    }
