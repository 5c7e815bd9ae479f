"""`semel key`."""

from typing import Annotated

import typer


def key(
    scope: Annotated[str, typer.Option(help="read, submit or admin; each includes those before it.")] = "submit",
) -> None:
    """Make an API key: prints it once, and the line for SEMEL_API_KEYS_FILE, which holds only its hash."""
    import secrets

    from semel.api.edge.access import file_line

    made = f"sk-semel-{secrets.token_urlsafe(32)}"
    line = file_line(made, scope)
    typer.echo(f"key, shown this once:           {made}")
    typer.echo(f"line for SEMEL_API_KEYS_FILE:   {line}")
