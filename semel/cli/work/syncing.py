"""Runs of syncs for `semel sync plan` and `semel sync run`."""

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from semel.errors import BadInputError, SemelError
from semel.log import configure_logs
from semel.settings import Settings, load_settings
from semel.sync.connecting import Place, database
from semel.sync.from_python import run_entry
from semel.sync.ledger import Ledger
from semel.sync.opened import SyncBusyError, TooManyDeletedError, entry_of
from semel.sync.report import Report
from semel.sync.running import RunOptions
from semel.sync.sinks import index_name
from semel.sync.sources import open_source
from semel.values.sync import SyncEntry

INCOMPLETE, TOO_MANY_DELETED, BUSY = 3, 4, 5
"""Exit codes; see `semel.cli.commands.sync`."""


@dataclass(frozen=True)
class Wanted:
    """The options that the commands of a sync share.

    Attributes:
        model: None for that of the sync.
        url: of a server; None for SEMEL_URL, unless `local`.
        max_delete: None for that of the sync.
    """

    model: str | None
    device: str
    url: str | None
    local: bool
    as_json: bool
    max_delete: str | None

    def settings(self) -> Settings:
        """The settings of the command."""
        return sync_settings(self.url)

    def place(self, settings: Settings) -> Place:
        """Where documents are embedded."""
        return Place(None if self.local else settings.url, self.device)


def sync_settings(url: str | None = None) -> Settings:
    """The settings of a command, which writes its log to stderr. Raises BadInputError."""
    settings = load_settings(url=url)
    configure_logs(level="warning", fmt=settings.log_format)
    return settings


def names_of() -> list[str]:
    """The syncs of semel.toml. Raises BadInputError if there is none."""
    names = list(sync_settings().syncs)
    if not names:
        raise BadInputError("semel.toml has no [syncs.NAME]")
    return names


def run_all(targets: Sequence[tuple[str, str | None]], wanted: Wanted, *, dry_run: bool) -> int:
    """Run syncs one after the other; one that fails does not stop the others.

    Args:
        targets: the name of each, or its source and its sink.

    Returns:
        The exit code.

    Raises:
        SemelError: the only sync failed.
    """
    worst = 0
    for target in targets:
        try:
            code = _run(target, wanted, dry_run=dry_run)
        except SemelError as error:
            known = _code_of(error)
            if known is None and len(targets) == 1:
                raise
            code = known or 1
            typer.secho(f"error: {target[0]}: {error}", err=True, fg="red")
        worst = max(worst, code, key=lambda each: (each == 1, each))
    return worst


def _code_of(error: SemelError) -> int | None:
    if isinstance(error, SyncBusyError):
        return BUSY
    return TOO_MANY_DELETED if isinstance(error, TooManyDeletedError) else None


def entry_for(settings: Settings, target: tuple[str, str | None]) -> tuple[str, SyncEntry]:
    """The name and the entry of a sync of semel.toml, or of a source with a sink. Raises BadInputError."""
    name, sink = target
    if sink is not None:
        return index_name(sink), SyncEntry(source=name, sink=sink)
    if name not in settings.syncs and ("/" in name or Path(name).exists()):
        raise BadInputError(f"{name!r} is a source, and needs a sink: semel sync run {name} lancedb:./index/NAME")
    if name in settings.syncs:
        return name, settings.syncs[name]
    with database(settings) as db:
        return name, entry_of(settings, Ledger(db), name)


def _run(target: tuple[str, str | None], wanted: Wanted, *, dry_run: bool) -> int:
    settings = wanted.settings()
    name, entry = entry_for(settings, target)
    entry = replace(entry, model=wanted.model or entry.model)
    with _progress(name) as show:
        options = RunOptions(
            max_delete=wanted.max_delete,
            dry_run=dry_run,
            on_planned=lambda plan: show.lines(f"{name}: {line}" for line in plan.lines()),
            on_progress=show,
        )
        report = run_entry(settings, name, entry, open_source(entry), wanted.place(settings), options)
    if wanted.as_json:
        typer.echo(json.dumps({"sync": name, **report.as_json()}, ensure_ascii=False))
    _show_report(report, dry_run=dry_run)
    return INCOMPLETE if report.failed else 0


def _show_report(report: Report, *, dry_run: bool) -> None:
    if dry_run:
        lines = [f"{document}: {why}" for document, why in report.failures.items()]
    elif report.plan.is_empty and not report.failed:
        lines = [f"in step already ({report.seconds:.1f} s)"]
    else:
        lines = report.lines()
    for line in lines:
        typer.echo(line, err=True)


@contextmanager
def _progress(name: str) -> Iterator["_Shown"]:
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=12),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(file=sys.stderr),
        transient=True,
        disable=not sys.stderr.isatty(),
    )
    with progress:
        yield _Shown(progress, name)


class _Shown:
    """The progress of a run: documents that were compared, then chunks that were written."""

    def __init__(self, progress: Progress, name: str) -> None:
        self._progress = progress
        self._name = name
        self._task = progress.add_task(f"{name}: opening", total=None)

    def lines(self, lines: Iterable[str]) -> None:
        """Print lines above the bar."""
        for line in lines:
            self._progress.console.print(line, highlight=False, markup=False, soft_wrap=True)

    def __call__(self, what: str, done: int, total: int | None) -> None:
        unit = "documents" if what == "comparing" else "chunks"
        self._progress.update(self._task, description=f"{self._name}: {what} {unit}", completed=done, total=total)


def watch_folder(target: tuple[str, str | None], wanted: Wanted) -> None:
    """Run a sync now, and again whenever a file of its folder changes, until Ctrl-C.

    Raises:
        BadInputError: its source is no folder of this machine, or watchfiles is not installed.
    """
    try:
        from watchfiles import watch
    except ImportError:
        raise BadInputError("--watch needs pip install 'semel[sync]'") from None
    _, entry = entry_for(wanted.settings(), target)
    folder = Path(entry.source).expanduser()
    if not folder.is_dir():
        raise BadInputError(f"--watch needs a folder of this machine as the source, not {entry.source!r}")
    changes = watch(folder, debounce=2000, step=200, raise_interrupt=True, rust_timeout=500, yield_on_timeout=True)
    next(changes)  # it watches from now on: a change during the first run is not missed
    run_all([target], wanted, dry_run=False)
    typer.echo(f"watching {folder}; Ctrl-C ends it", err=True)
    for changed in changes:
        if not changed:
            continue
        try:
            run_all([target], wanted, dry_run=False)
        except SemelError as error:  # the next change tries again
            typer.secho(f"error: {error}", err=True, fg="red")
