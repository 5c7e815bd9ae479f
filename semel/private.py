"""Folders and files that only their owner can read: they hold texts, vectors and keys."""

import errno
import os
from contextlib import suppress
from pathlib import Path

from semel.errors import BadInputError

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""The disk is full, or what this user or process may write to it."""


def private_folder(folder: Path) -> None:
    """Create a folder for its owner alone, unless it exists; one that exists keeps its mode.

    Raises:
        BadInputError: it cannot be created.
        OSError: the disk is full.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
    except OSError as error:
        if error.errno in NO_ROOM:
            raise
        raise BadInputError(_unusable(folder, str(error.strerror))) from None
    if not folder.is_dir():
        raise BadInputError(_unusable(folder, "it is no folder"))


def _unusable(folder: Path, why: str) -> str:
    return f"the folder {folder} cannot be used: {why}; set SEMEL_HOME to a folder that you may write"


def private_file(file: Path) -> None:
    """Create an empty file for its owner alone, unless it exists or cannot be created."""
    with suppress(OSError):  # whoever writes to it reports why
        os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
