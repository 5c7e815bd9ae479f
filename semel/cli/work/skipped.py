"""The list of inputs that cannot be read."""

from collections.abc import Sequence

import typer

from semel.rows import Item

_LISTED = 20
"""Inputs that are listed one by one."""


def print_skipped(items: Sequence[Item], consequence: str) -> None:
    """Print on stderr how many inputs cannot be read, and why for the first of them; nothing if there are none.

    Args:
        items: inputs with an `error`.
        consequence: what that means for the numbers that the command prints.
    """
    if items:
        typer.echo(f"{len(items)} inputs cannot be read; {consequence}:", err=True)
        typer.echo("\n".join(f"  {item.where}: {item.error}" for item in items[:_LISTED]), err=True)
