"""`semel bench`: how fast is semel on this machine, and is it slower than it was?"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from semel.cli.commands import options

if TYPE_CHECKING:
    from semel.cli.bench.compare import Change
    from semel.cli.bench.figures import Run
    from semel.cli.bench.run import Plan
    from semel.settings import Settings


def bench(
    quick: Annotated[bool, typer.Option("--quick", help="Take about one minute instead of five.")] = False,
    compare: Annotated[
        Path | None,
        typer.Option(
            "--compare", metavar="OLD.json", help="Mark what is worse than in this run; if anything is, exit with 1."
        ),
    ] = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="File for the figures.")] = Path("bench.json"),
    report: Annotated[Path, typer.Option("--report", help="File for the charts.")] = Path("bench.html"),
    device: Annotated[
        list[str] | None, typer.Option("--device", help="Measure this device only. Repeatable. Default: all usable.")
    ] = None,
    model: Annotated[
        list[str] | None, typer.Option("--model", help="Measure this model only. Repeatable. Default: all configured.")
    ] = None,
    overwrite: options.Overwrite = False,
) -> None:
    """Measure this machine: start, latency, rates, memory, the service and the cache, next to their limits."""
    import importlib

    from semel.cli.bench.compare import changes
    from semel.cli.bench.figures import read_run
    from semel.cli.bench.run import plan
    from semel.errors import BadInputError
    from semel.log import configure_logs
    from semel.settings import load_settings

    for package in ("matplotlib", "psutil"):  # say at once what would be missing at the end
        importlib.import_module(package)
    settings = load_settings()
    configure_logs(level="error", fmt=settings.log_format)
    for path in (output, report):
        if path.exists() and not overwrite:
            raise BadInputError(f"{path} exists; give --overwrite, or another file with --output and --report")
    old = None if compare is None else read_run(compare)
    chosen = plan(_devices(settings, device), _models(settings, model), quick=quick)
    run = _measure(chosen, settings)
    run.write(output)
    _show(run, output, report, None if old is None else list(changes(old, run)))


def _devices(settings: "Settings", wanted: list[str] | None) -> list[str]:
    """The usable devices, or those of them that are wanted. Raises BadInputError for another one."""
    from semel.backends.devices.find import find_devices
    from semel.errors import BadInputError

    usable = [found.name for found in find_devices(software=settings.software_devices) if found.usable]
    if not usable:
        raise BadInputError("no device of this machine is usable; 'semel devices' says why")
    if missing := [name for name in wanted or () if name not in usable]:
        raise BadInputError(
            f"the device {missing[0]!r} is not usable here ('semel devices' says why); these are: {', '.join(usable)}"
        )
    return wanted or usable


def _models(settings: "Settings", wanted: list[str] | None) -> list[str]:
    """The models of the configuration, or those that are wanted. Raises UnknownModelError."""
    from semel.errors import UnknownModelError

    for name in wanted or ():
        if name not in settings.all_models:
            raise UnknownModelError(name, list(settings.all_models))
    return wanted or list(settings.models) or [settings.default_model]


def _measure(chosen: "Plan", settings: "Settings") -> "Run":
    """Measure with a bar on stderr for what is under way."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from semel.cli.bench.run import measure

    columns = (TextColumn("{task.description:<32}"), BarColumn(bar_width=24), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        tasks: dict[str, int] = {}

        def show(name: str, done: float) -> None:
            if name not in tasks:
                tasks[name] = progress.add_task(name, total=1.0)
            progress.update(tasks[name], completed=done)  # type: ignore[arg-type]  # an int with a name of its own

        return measure(chosen, settings, show=show)


def _show(run: "Run", output: Path, report: Path, compared: "list[Change] | None") -> None:
    """Print the tables and write the report. Raises Exit if something got worse."""
    from rich.console import Console

    from semel.cli.bench.report import write_report
    from semel.cli.bench.table import tables

    console = Console()
    for table in tables(run.figures, compared):
        console.print(table)
    for name, why in run.left_out.items():
        typer.secho(f"left out: {name}: {why}", err=True, fg="yellow")
    write_report(run, report)
    typer.echo(f"figures in {output}, charts in {report}", err=True)
    worse = [change.new for change in compared or () if change.verdict == "worse"]
    if worse:
        typer.secho(f"{len(worse)} figures are worse than before, by more than the noise:", err=True, fg="red")
        for figure in worse:
            typer.echo(f"  {' · '.join(part for part in figure.identity if part)}", err=True)
        raise typer.Exit(1)
    if not run.figures:
        raise typer.Exit(1)
