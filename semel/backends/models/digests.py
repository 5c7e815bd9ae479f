"""Digests of files by content, remembered by path, size, inode and times of change."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from semel.atomic_write import atomic_write
from semel.log import get_log

log = get_log("models")


class Digests:
    """SHA-256 of files. Hashing a gigabyte takes seconds, so the answer is kept beside the database.

    Args:
        memo: a JSON file, made when needed; None remembers nothing.
    """

    def __init__(self, memo: Path | None) -> None:
        self._memo = memo

    def of_files(self, root: Path, files: Sequence[Path]) -> str:
        """One digest over relative names and contents, in the order of the names."""
        known = self._recall()
        total = hashlib.sha256()
        for file in sorted(files):
            status = file.stat()
            identity = f"{file.resolve()}|{status.st_size}|{status.st_mtime_ns}|{status.st_ctime_ns}|{status.st_ino}"
            if identity not in known:
                with file.open("rb") as stream:
                    known[identity] = hashlib.file_digest(stream, "sha256").hexdigest()
                self._remember(known)
            total.update(json.dumps([file.relative_to(root).as_posix(), known[identity]]).encode())
        return total.hexdigest()

    def _recall(self) -> dict[str, str]:
        if self._memo is None or not self._memo.exists():
            return {}
        try:
            known: dict[str, str] = json.loads(self._memo.read_text())
        except ValueError:
            return {}  # cut off in the middle of a write: hash again
        return known

    def _remember(self, known: dict[str, str]) -> None:
        if self._memo is None:
            return
        try:
            self._memo.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(self._memo) as file:
                file.write(json.dumps(known).encode())
        except OSError as error:
            log.warning("digests are not remembered, the next start hashes again", reason=str(error))
