"""Files that appear only when they are complete, and leave nothing behind otherwise."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Write to a new file next to `path`, and rename it to `path` when the block ends without an error.

    A reader sees either the old content or the new, never a part. Several processes may write the same path: the last
    one to finish wins.

    Raises:
        OSError: the folder does not exist, or the disk is full.
    """
    part = part_of(path)
    try:
        with part.open("xb") as file:
            yield file
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def part_of(path: Path) -> Path:
    """A new, unique name next to `path` for a file that is not complete yet."""
    return path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.part")
