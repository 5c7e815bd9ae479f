"""Folders and files that only their owner can read: they hold texts, vectors and keys."""

import os
from contextlib import suppress
from pathlib import Path


def private_folder(folder: Path) -> None:
    """Create a folder for its owner alone, unless it exists; one that exists keeps its mode."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)


def private_file(file: Path) -> None:
    """Create an empty file for its owner alone, unless it exists or cannot be created."""
    with suppress(OSError):  # whoever writes to it reports why
        os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
