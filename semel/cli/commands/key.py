"""`semel key`: make an API key."""

from typing import Annotated

import typer


def key(
    scope: Annotated[
        str, typer.Option(help="What the key allows: read, submit or admin. Each includes those before it.")
    ] = "submit",
) -> None:
    """Make an API key.

    Prints the key, which is not stored anywhere, and the line for SEMEL_API_KEYS_FILE, which holds only its hash.
    """
    import secrets

    from semel.api.edge.access import file_line

    made = f"sk-semel-{secrets.token_urlsafe(32)}"
    line = file_line(made, scope)
    typer.echo(f"API key (shown only once):      {made}")
    typer.echo(f"line for SEMEL_API_KEYS_FILE:   {line}")
