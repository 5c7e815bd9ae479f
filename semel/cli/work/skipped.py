"""The list of inputs that `--skip-bad` left out."""

from collections.abc import Sequence

import typer

from semel.rows import Item

_LISTED = 20
"""Inputs that are listed one by one."""


def print_skipped(items: Sequence[Item], consequence: str) -> None:
    """Print on stderr how many inputs were skipped, and why for the first of them; nothing if there are none.

    Args:
        items: inputs with an `error`.
        consequence: what the omission means for the numbers that the command prints.
    """
    if items:
        typer.echo(f"{len(items)} inputs were not sent; {consequence}:", err=True)
        typer.echo("\n".join(f"  {item.where}: {item.error}" for item in items[:_LISTED]), err=True)
