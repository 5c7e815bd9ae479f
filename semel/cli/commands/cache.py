"""`semel cache …`: on the database of this machine's settings."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from semel.cli.commands import options

if TYPE_CHECKING:
    from semel.cache.store import VectorStore
    from semel.tasks.jobs.store import JobStore

app = typer.Typer(help="Look at the vector cache, check it, make room in it.", no_args_is_help=True)


def _open() -> "tuple[VectorStore, JobStore]":
    from semel.cache.store import VectorStore
    from semel.db import Database
    from semel.log import configure_logs
    from semel.settings import load_settings
    from semel.tasks.jobs.store import JobStore

    settings = load_settings()
    configure_logs(level="error", fmt=settings.log_format)
    db = Database(settings.database, max_bytes=settings.database_max_bytes)
    db.upgrade()
    jobs = JobStore(db, window_s=settings.job_window_s, retention_s=settings.job_retention_s)
    return VectorStore(db, dtype=settings.vector_dtype), jobs


@app.command()
def stats(as_json: options.AsJson = False) -> None:
    """What the cache holds, by vector space."""
    store, _ = _open()
    found = store.stats()
    if as_json:
        import json

        from semel.values import as_plain

        typer.echo(json.dumps(as_plain(found), indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("model", "prompt", "dim", "precision", "entries", "MB", "fingerprint", box=None)
    for s in found:
        table.add_row(
            s.model,
            s.prompt_name or "–",
            str(s.dim),
            s.precision,
            f"{s.entries:,}",
            f"{s.bytes / 1e6:,.1f}",
            s.fingerprint[:16],
        )
    Console().print(table if found else "the cache is empty")


@app.command()
def verify(
    repair: Annotated[
        bool, typer.Option("--repair", help="Delete damaged rows; they are computed again when asked for.")
    ] = False,
) -> None:
    """Read every vector and check size, checksum and numbers. Exit code 1 when some are damaged."""
    from rich.progress import Progress

    store, _ = _open()
    total = sum(s.entries for s in store.stats())
    with Progress(transient=True) as progress:
        task = progress.add_task("verifying", total=total)
        for state in store.verify(repair=repair):
            progress.update(task, completed=state.entries)
    typer.echo(f"{state.entries:,} vectors read, {len(state.damaged):,} damaged" + (" and deleted" if repair else ""))
    for key in state.damaged[:20]:
        typer.echo(f"  {key.hex()}")
    if state.damaged and not repair:
        raise typer.Exit(1)


@app.command()
def prune(
    max_bytes: Annotated[str | None, typer.Option(help="Keep at most this much, the newest: 500MB, 20GB.")] = None,
    older_than: Annotated[str | None, typer.Option(help="Delete what was computed longer ago: 90d, 12h.")] = None,
    fingerprint: Annotated[
        str | None, typer.Option(help="Only this space ('semel cache stats'); a prefix will do.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say how many.")] = False,
) -> None:
    """Delete vectors, the oldest first; never what a job that has not expired still needs."""
    from semel.errors import BadInputError

    if max_bytes is None and older_than is None and fingerprint is None:
        raise BadInputError("say what to delete: --max-bytes, --older-than or --fingerprint")
    store, jobs = _open()
    count = store.prune(
        keep=jobs.needed_keys,
        max_bytes=None if max_bytes is None else _parse(max_bytes, _BYTES, "--max-bytes"),
        older_than_s=None if older_than is None else _parse(older_than, _SECONDS, "--older-than"),
        fingerprint=None if fingerprint is None else _find_space(store, fingerprint),
        dry_run=dry_run,
    )
    typer.echo(f"{count:,} vectors {'would be deleted' if dry_run else 'deleted'}")


@app.command("export")
def export_vectors(
    output: Annotated[Path, typer.Argument(metavar="OUTPUT", help="A .parquet file.")],
    fingerprint: Annotated[
        str | None, typer.Option(help="Which space ('semel cache stats'); a prefix will do. Default: the only one.")
    ] = None,
) -> None:
    """Write the vectors of one space to a file, for 'semel cache import' elsewhere."""
    from rich.progress import Progress

    from semel.cache.transfer import export_space
    from semel.errors import BadInputError

    if output.suffix != ".parquet":
        raise BadInputError(f"an export is a .parquet file, not {output.name!r}")
    store, _ = _open()
    space = store.space_of(_find_space(store, fingerprint or ""))
    total, count = sum(s.entries for s in store.stats() if s.fingerprint == space.fingerprint.hex()), 0
    with Progress(transient=True) as progress:
        task = progress.add_task("exporting", total=total)
        for count in export_space(store, space, output):
            progress.update(task, completed=count)
    typer.echo(f"{count:,} vectors of {space.model} written to {output}")


@app.command("import")
def import_vectors(
    source: Annotated[
        Path, typer.Argument(metavar="INPUT", help="An export, or .jsonl or .parquet with text and embedding.")
    ],
    model: options.Model = None,
    prompt_name: options.Prompt = "",
    device: options.Device = "auto",
) -> None:
    """Take vectors that were computed elsewhere with the same model: those texts become hits.

    An export is checked by its fingerprint and checksums. Vectors with their texts are compared with some that the
    model makes here, so the model must be on this machine.
    """
    from semel.cli.work.importing import import_file
    from semel.settings import load_settings

    stored, present = import_file(
        load_settings(device=None if device == "auto" else device), source, model=model, prompt_name=prompt_name
    )
    typer.echo(f"{stored:,} vectors stored, {present:,} were in the cache already")


_BYTES = {"kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12, "": 1}
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def _parse(text: str, units: dict[str, int], option: str) -> int:
    from semel.errors import BadInputError

    number = text.lower().rstrip("abcdefghijklmnopqrstuvwxyz").strip()
    unit = text.lower()[len(number) :].strip()
    if not number.replace(".", "", 1).isdigit() or unit not in units:
        names = ", ".join(u for u in units if u)
        raise BadInputError(f"{option} takes a number with a unit ({names}), not {text!r}")
    return int(float(number) * units[unit])


def _find_space(store: "VectorStore", prefix: str) -> bytes:
    from semel.errors import BadInputError

    found = [s.fingerprint for s in store.stats() if s.fingerprint.startswith(prefix.lower())]
    if len(found) != 1:
        raise BadInputError(
            f"{len(found)} spaces have a fingerprint that begins with {prefix!r}; name one with --fingerprint, see "
            "'semel cache stats'"
        )
    return bytes.fromhex(found[0])
