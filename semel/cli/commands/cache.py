"""`semel cache …`: work on the database that this machine's settings name."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from semel.cli.commands import options

if TYPE_CHECKING:
    from semel.cache.stats import CacheStats
    from semel.db import Database
    from semel.settings import Settings

app = typer.Typer(help="Inspect, verify and prune the vector cache; export and import vectors.", no_args_is_help=True)


def _open() -> "tuple[Database, Settings]":
    from semel.db import Database
    from semel.log import configure_logs
    from semel.settings import load_settings

    settings = load_settings()
    configure_logs(level="error", fmt=settings.log_format)
    db = Database(settings.database, max_bytes=settings.database_max_bytes)
    db.upgrade()
    return db, settings


@app.command()
def stats(as_json: options.AsJson = False) -> None:
    """Show what the cache holds for each vector space."""
    from semel.cache.stats import CacheStats

    db, _ = _open()
    found = CacheStats(db).by_space()
    if as_json:
        import json

        from pydantic_core import to_jsonable_python

        typer.echo(json.dumps(to_jsonable_python(found, bytes_mode="hex"), indent=2))
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
        bool, typer.Option("--repair", help="Delete damaged vectors; they are computed again when they are needed.")
    ] = False,
) -> None:
    """Read every vector and check its size, checksum and numbers. The exit code is 1 if damaged vectors remain."""
    from rich.progress import Progress

    from semel.cache.stats import CacheStats
    from semel.cache.stats import verify as verify_rows
    from semel.cache.store import VectorStore

    db, settings = _open()
    store = VectorStore(db, dtype=settings.vector_dtype)
    total = sum(s.entries for s in CacheStats(db).by_space())
    with Progress(transient=True) as progress:
        task = progress.add_task("verifying", total=total)
        for state in verify_rows(db, store, repair=repair):
            progress.update(task, completed=state.entries)
    typer.echo(f"{state.entries:,} vectors read, {len(state.damaged):,} damaged" + (" and deleted" if repair else ""))
    for key in state.damaged[:20]:
        typer.echo(f"  {key.hex()}")
    if state.damaged and not repair:
        raise typer.Exit(1)


_HOLDERS = 3
"""Jobs that are named as the reason why vectors are kept."""


@app.command()
def prune(
    max_bytes: Annotated[str | None, typer.Option(help="Keep the newest vectors up to this size: 500MB, 20GB.")] = None,
    older_than: Annotated[str | None, typer.Option(help="Delete vectors that are older than this: 90d, 12h.")] = None,
    fingerprint: Annotated[
        str | None, typer.Option(help="Prune only this vector space (see 'semel cache stats'); a prefix is enough.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Report how many vectors would be deleted, and delete none.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Delete without a question.")] = False,
) -> None:
    """Delete vectors, the oldest first. Vectors that an unexpired job still needs are kept."""
    from semel.cache.prune import Pruner
    from semel.cache.stats import CacheStats
    from semel.errors import BadInputError
    from semel.tasks.jobs.holding import Holding

    if max_bytes is None and older_than is None and fingerprint is None:
        raise BadInputError("choose what to delete with --max-bytes, --older-than or --fingerprint")
    db, _ = _open()
    holding = Holding(db)
    pruner = Pruner(db, keep=holding.needed_keys)
    space = None if fingerprint is None else _find_space(CacheStats(db), fingerprint)
    size = None if max_bytes is None else _bytes(max_bytes)
    age_s = None if older_than is None else _seconds(older_than)
    plan = pruner.plan(max_bytes=size, older_than_s=age_s, fingerprint=space)
    if plan.kept:
        _print_kept(plan.kept, *holding.holders(limit=_HOLDERS, fingerprint=space))
    if dry_run or not plan.delete:
        typer.echo(f"{plan.delete:,} vectors {'would be deleted' if dry_run else 'deleted'}")
        return
    if not yes:
        _confirm(plan.delete)
    typer.echo(f"{pruner.prune(max_bytes=size, older_than_s=age_s, fingerprint=space):,} vectors deleted")


def _print_kept(kept: int, named: list[str], count: int) -> None:
    more = ", …" if count > len(named) else ""
    typer.echo(
        f"{kept:,} more vectors are kept for {count:,} jobs that have not expired ({', '.join(named)}{more}); "
        "'semel jobs delete JOB' lets them go",
        err=True,
    )


def _confirm(count: int) -> None:
    """Ask before vectors are deleted. Raises BadInputError if nobody is there to answer."""
    import sys

    from semel.errors import BadInputError

    if not sys.stdin.isatty():
        raise BadInputError(f"{count:,} vectors would be deleted; add --yes to delete them without a question")
    typer.confirm(f"Delete {count:,} vectors?", abort=True)


@app.command("export")
def export_vectors(
    output: Annotated[Path, typer.Argument(metavar="OUTPUT", help="The .parquet file to write.")],
    fingerprint: Annotated[
        str | None,
        typer.Option(
            help="Vector space to export (see 'semel cache stats'); a prefix is enough. Default: the only one."
        ),
    ] = None,
) -> None:
    """Write the vectors of one vector space to a file that 'semel cache import' reads."""
    from rich.progress import Progress

    from semel.cache.stats import CacheStats
    from semel.cache.transfer import export_space
    from semel.cli.work.outputs import check_folder
    from semel.errors import BadInputError

    if output.suffix != ".parquet":
        raise BadInputError(f"an export must be a .parquet file, not {output.name!r}")
    check_folder(output)
    db, _ = _open()
    stats = CacheStats(db)
    space = stats.space_of(_find_space(stats, fingerprint or ""))
    total, count = sum(s.entries for s in stats.by_space() if s.fingerprint == space.fingerprint.hex()), 0
    with Progress(transient=True) as progress:
        task = progress.add_task("exporting", total=total)
        for count in export_space(db, space, output):
            progress.update(task, completed=count)
    typer.echo(f"{count:,} vectors of {space.model} written to {output}")


@app.command("import")
def import_vectors(
    source: Annotated[
        Path, typer.Argument(metavar="INPUT", help="An export, or a .jsonl or .parquet file with text and embedding.")
    ],
    model: options.Model = None,
    prompt_name: options.Prompt = "",
    device: options.Device = "auto",
    check: Annotated[
        float, typer.Option(min=0, max=100, help="Per cent of the texts that are computed again and compared.")
    ] = 5.0,
) -> None:
    """Store vectors that the same model computed elsewhere, so that their texts become hits.

    An export is checked by its fingerprint and checksums. For a file of texts and vectors, some of the texts are
    computed here and compared, so the model must be on this machine.
    """
    from semel.cli.work.importing import import_file
    from semel.settings import load_settings

    settings = load_settings(device=None if device == "auto" else device)
    done = import_file(settings, source, model=model, prompt_name=prompt_name, share=check / 100)
    typer.echo(f"{done.stored:,} vectors stored, {done.present:,} were in the cache already")
    if done.compared:
        share = done.compared / max(1, done.stored)
        typer.echo(
            f"{done.compared:,} of them were computed again, and are the same: a shift of all rows would have been "
            f"found, a swap of two rows with a probability of {1 - (1 - share) ** 2:.0%} (--check 100 finds all)",
            err=True,
        )


_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def _bytes(text: str) -> int:
    from pydantic import ByteSize, TypeAdapter, ValidationError

    from semel.errors import BadInputError

    try:
        return int(TypeAdapter(ByteSize).validate_python(text))
    except ValidationError:
        raise BadInputError(f"--max-bytes takes a number with a unit (kb, mb, gb, tb), not {text!r}") from None


def _seconds(text: str) -> float:
    import re

    from semel.errors import BadInputError

    given = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd])", text.strip().lower())
    if given is None:
        raise BadInputError(f"--older-than takes a number with a unit ({', '.join(_SECONDS)}), not {text!r}")
    return float(given[1]) * _SECONDS[given[2]]


def _find_space(stats: "CacheStats", prefix: str) -> bytes:
    from semel.errors import BadInputError

    found = [s.fingerprint for s in stats.by_space() if s.fingerprint.startswith(prefix.lower())]
    if len(found) != 1:
        raise BadInputError(
            f"{len(found)} vector spaces have a fingerprint that starts with {prefix!r}; choose one with "
            "--fingerprint ('semel cache stats' lists them)"
        )
    return bytes.fromhex(found[0])
