"""Inputs that `--skip-bad` left out."""

from collections.abc import Sequence

import typer

from semel.rows import Item

_LISTED = 20


def tell_skipped(items: Sequence[Item], consequence: str) -> None:
    """On stderr, the first of them with their reasons; nothing when there are none.

    Args:
        consequence: what it means for the answer.
    """
    if items:
        typer.echo(f"{len(items)} inputs were not sent; {consequence}:", err=True)
        typer.echo("\n".join(f"  {item.where}: {item.error}" for item in items[:_LISTED]), err=True)
