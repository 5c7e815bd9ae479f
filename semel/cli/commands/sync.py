"""`semel sync …`: an index that follows documents.

Exit codes: 0, the index is in step; 3, some documents are not; 4, the source shrank by too much and nothing was
written; 5, another run is under way; 2 and 1 as for every command.
"""

from typing import TYPE_CHECKING, Annotated

import typer

from semel.cli.commands import options

if TYPE_CHECKING:
    from semel.cli.work.syncing import Wanted

app = typer.Typer(no_args_is_help=True, help="Keep an index in step with documents: semel.toml's [syncs.NAME].")

Name = Annotated[str, typer.Argument(metavar="NAME", help="A sync of semel.toml, [syncs.NAME].")]
Local = Annotated[bool, typer.Option("--local", help="Embed in this process even if SEMEL_URL is set.")]
Url = Annotated[str | None, typer.Option("--url", help="URL of a semel server that embeds. Default: SEMEL_URL.")]
MaxDelete = Annotated[
    str | None,
    typer.Option(
        "--max-delete",
        help="Stop if the documents in the index would become fewer by more than this. Default: that of semel.toml, "
        "else 10%.",
    ),
]
Target = Annotated[str, typer.Argument(metavar="NAME|SOURCE", help="A sync of semel.toml, or a source.")]
Sink = Annotated[str | None, typer.Argument(metavar="[SINK]", help="Where the vectors go, if a source was given.")]


def _wanted(
    model: str | None, device: str, url: str | None, local: bool, as_json: bool, max_delete: str | None
) -> "Wanted":
    from semel.cli.work.syncing import Wanted
    from semel.errors import BadInputError

    if local and url:
        raise BadInputError("--local and --url cannot be used together; give one of them")
    return Wanted(model=model, device=device, url=url, local=local, as_json=as_json, max_delete=max_delete)


@app.command("plan")
def plan(
    target: Target,
    sink: Sink = None,
    model: options.Model = None,
    device: options.Device = "auto",
    url: Url = None,
    local: Local = False,
    as_json: options.AsJson = False,
) -> None:
    """Show what a run would change. Nothing is embedded or written."""
    from semel.cli.work.syncing import run_all

    wanted = _wanted(model, device, url, local, as_json, None)
    raise typer.Exit(run_all([(target, sink)], wanted, dry_run=True))


@app.command("run")
def run(
    target: Annotated[
        str | None, typer.Argument(metavar="[NAME|SOURCE]", help="A sync of semel.toml, or a source.")
    ] = None,
    sink: Sink = None,
    every: Annotated[bool, typer.Option("--all", help="Run all syncs of semel.toml, one after the other.")] = False,
    model: options.Model = None,
    device: options.Device = "auto",
    url: Url = None,
    local: Local = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Stop after the plan.")] = False,
    max_delete: MaxDelete = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Go on, and run again whenever a file of the source's folder changes.")
    ] = False,
    as_json: options.AsJson = False,
) -> None:
    """Bring the index in step with the documents: embed what is new or changed, delete what is gone.

    With another model than that of the index, a second collection is filled while the first one answers; `cutover`
    switches.

    Exit codes: 0, the index is in step; 3, some documents are not (they are listed); 4, the source shrank by more than
    --max-delete and nothing was written; 5, another run is under way.
    """
    from semel.cli.work.syncing import names_of, run_all, watch_folder
    from semel.errors import BadInputError

    if every == (target is not None):
        raise BadInputError("give the name of a sync, a source and a sink, or --all")
    wanted = _wanted(model, device, url, local, as_json, max_delete)
    targets: list[tuple[str, str | None]] = (
        [(name, None) for name in names_of()] if target is None else [(target, sink)]
    )
    if watch:
        if len(targets) != 1 or dry_run:
            raise BadInputError("--watch follows one sync, and cannot be used with --dry-run")
        watch_folder(targets[0], wanted)
    raise typer.Exit(run_all(targets, wanted, dry_run=dry_run))


@app.command("status")
def status(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="One sync. Default: all.")] = None,
    as_json: options.AsJson = False,
) -> None:
    """Show the collections and the last runs."""
    from semel.cli.work.sync_views import show_states

    show_states(name, as_json=as_json)


@app.command("check")
def check(
    name: Name,
    sample: Annotated[int, typer.Option("--sample", min=0, help="Vectors to compare with the cache.")] = 100,
    every: Annotated[bool, typer.Option("--all", help="Compare every vector.")] = False,
    repair: Annotated[bool, typer.Option("--repair", help="Mend what is found, and compare every vector.")] = False,
    collection: Annotated[
        str | None, typer.Option("--collection", help="Name of a collection. Default: the one that answers.")
    ] = None,
    device: options.Device = "auto",
    url: Url = None,
    local: Local = False,
    as_json: options.AsJson = False,
) -> None:
    """Compare the index with the ledger, and vectors with the cache. Exit code 3 if something is wrong."""
    from semel.cli.work.sync_checks import check_sync

    wanted = _wanted(None, device, url, local, as_json, None)
    compared = None if every or repair else sample
    raise typer.Exit(check_sync(name, wanted, sample=compared, repair=repair, collection=collection))


@app.command("cutover")
def cutover(name: Name) -> None:
    """Let the collection of the new model answer, after its counts and a sample of its vectors agree."""
    from semel.cli.work.sync_checks import switch

    typer.echo(switch(name, "cutover"))


@app.command("rollback")
def rollback(name: Name) -> None:
    """Let the collection answer that answered before the last cutover."""
    from semel.cli.work.sync_checks import switch

    typer.echo(switch(name, "rollback"))


@app.command("drop")
def drop(
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    forget: Annotated[
        bool, typer.Option("--forget", help="Leave the index as it is: its place is gone, or it moved.")
    ] = False,
) -> None:
    """Delete the index with all its collections, and forget the sync. Its vectors stay in the cache."""
    from semel.cli.work.sync_checks import drop_sync, forget_sync

    if forget:
        for each in forget_sync(name):
            typer.echo(f"forgot {each}")
        return
    if not yes:
        typer.confirm(f"Delete the index of sync {name!r} with all its collections?", abort=True)
    for each in drop_sync(name):
        typer.echo(f"dropped {each}")


def search(
    name: Name,
    question: Annotated[str, typer.Argument(metavar="QUESTION", help="What to look for.")],
    k: Annotated[int, typer.Option("-k", min=1, max=1000, help="Number of results.")] = 5,
    rerank: Annotated[
        str | None, typer.Option("--rerank", help="A cross-encoder of semel.toml that orders the nearest chunks.")
    ] = None,
    where: Annotated[
        list[str], typer.Option("--where", help="Only chunks with this value: FIELD=VALUE. Repeatable.")
    ] = [],  # noqa: B006  # typer's way to say that it may be given any number of times
    device: options.Device = "auto",
    url: Url = None,
    local: Local = False,
    as_json: options.AsJson = False,
) -> None:
    """Show the chunks of an index that are nearest to a question."""
    from semel.cli.work.sync_views import search_sync

    wanted = _wanted(None, device, url, local, as_json, None)
    search_sync(name, question, wanted, k=k, rerank=rerank, where=where)
