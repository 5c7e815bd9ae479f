"""`semel key`: make an API key."""

from typing import Annotated

import typer

from semel.cli.commands import options


def key(
    scope: Annotated[
        str, typer.Option(help="What the key allows: read, submit or admin. Each includes those before it.")
    ] = "submit",
    option: Annotated[
        list[str] | None,
        typer.Option(
            help="name=…, namespace=…, cache=private, expires=YYYY-MM-DD or disk=10GB; may be given several times. "
            "Keys of a namespace see its jobs and files only; with cache=private, its vectors are its own, too."
        ),
    ] = None,
    list_keys: Annotated[
        bool, typer.Option("--list", help="Show the keys of a running server, with SEMEL_API_KEY of an administrator.")
    ] = False,
    url: options.Url = None,
) -> None:
    """Make an API key, or list those of a server.

    Prints the key, which is not stored anywhere, and the line for SEMEL_API_KEYS_FILE, which holds only its hash.
    """
    if list_keys:
        _list(url)
        return
    import secrets

    from semel.api.edge.keys import file_line

    made = f"sk-semel-{secrets.token_urlsafe(32)}"
    line = file_line(made, scope, option or [])
    typer.echo(f"API key (shown only once):      {made}")
    typer.echo(f"line for SEMEL_API_KEYS_FILE:   {line}")


def _list(url: str | None) -> None:
    from datetime import UTC, datetime

    from rich.console import Console
    from rich.table import Table

    from semel.client import Client
    from semel.settings import load_settings

    def day(at: float | None) -> str:
        return "–" if at is None else f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M}"

    with Client(load_settings(url=url).url or None) as client:
        found = client.keys()
    table = Table("name", "scope", "namespace", "last used (UTC)", "expires", "keeps MB", "of MB", box=None)
    for each in found:
        most = "–" if each.quota_bytes is None else f"{each.quota_bytes / 1e6:,.0f}"
        kept = f"{each.kept_bytes / 1e6:,.1f}"
        used = "never" if each.last_used_at is None else day(each.last_used_at)
        table.add_row(each.name, each.scope, each.namespace or "–", used, day(each.expires_at), kept, most)
    Console().print(table if found else "the server has no keys: every caller on this machine may do everything")
