"""Files that appear when they are complete, and of which nothing is left when they are not."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Write next to `path` under another name, and rename when the block ends without an error.

    A reader sees the old content or the new one, and never a part of it. Several processes may write the same path:
    the last one to finish wins.

    Raises:
        OSError: the folder does not exist, or has no room.
    """
    part = part_of(path)
    try:
        with part.open("xb") as file:
            yield file
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def part_of(path: Path) -> Path:
    """A new name next to `path` for a file that is not complete yet."""
    return path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.part")
