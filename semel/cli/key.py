"""`semel key`."""

from typing import Annotated

import typer


def key(
    scope: Annotated[str, typer.Option(help="read, submit or admin; each includes those before it.")] = "submit",
) -> None:
    """Make an API key: prints it once, and the line for SEMEL_API_KEYS_FILE, which holds only its hash."""
    import hashlib
    import secrets

    from semel.errors import BadInputError

    if scope not in ("read", "submit", "admin"):
        raise BadInputError(f"{scope!r} is no scope (known: read, submit, admin)")
    made = f"sk-semel-{secrets.token_urlsafe(32)}"
    typer.echo(f"key, shown this once:           {made}")
    typer.echo(f"line for SEMEL_API_KEYS_FILE:   {hashlib.sha256(made.encode()).hexdigest()} {scope}")
