"""`semel key`: make an API key."""

from typing import Annotated

import typer


def key(
    scope: Annotated[
        str, typer.Option(help="What the key allows: read, submit or admin. Each includes those before it.")
    ] = "submit",
    option: Annotated[
        list[str] | None,
        typer.Option(
            help="name=…, namespace=…, cache=private or expires=YYYY-MM-DD; may be given several times. Keys of a "
            "namespace see its jobs and files only; with cache=private, its vectors are its own, too."
        ),
    ] = None,
) -> None:
    """Make an API key.

    Prints the key, which is not stored anywhere, and the line for SEMEL_API_KEYS_FILE, which holds only its hash.
    """
    import secrets

    from semel.api.edge.keys import file_line

    made = f"sk-semel-{secrets.token_urlsafe(32)}"
    line = file_line(made, scope, option or [])
    typer.echo(f"API key (shown only once):      {made}")
    typer.echo(f"line for SEMEL_API_KEYS_FILE:   {line}")
