"""Names for folders that can be moved from one to another in one step: symbolic links."""

from pathlib import Path

from semel.atomic_write import part_of
from semel.errors import ConflictError


def pointed_at(link: Path) -> str | None:
    """The name of the folder next to `link` that it points at; None if there is no link."""
    return link.readlink().name if link.is_symlink() else None


def point_at(link: Path, name: str) -> None:
    """Let `link` point at the folder `name` next to it.

    Raises:
        ConflictError: something that is no link has this name.
    """
    if link.exists() and not link.is_symlink():
        raise ConflictError(f"{link} exists and was not made by a sync; move it away, or give the index another name")
    part = part_of(link)
    part.symlink_to(name, target_is_directory=True)
    part.replace(link)
