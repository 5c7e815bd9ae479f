"""Digests of file contents, remembered by path, size, inode and times of change."""

import hashlib
import json
import threading
from collections.abc import Sequence
from pathlib import Path

from semel.atomic_write import atomic_write
from semel.log import get_log

log = get_log("models")


class Digests:
    """SHA-256 digests of files. Hashing a gigabyte takes seconds, so they are kept next to the database.

    Args:
        memo: a JSON file for the digests, created when needed; None remembers nothing.
    """

    def __init__(self, memo: Path | None) -> None:
        self._memo = memo
        self._writing = threading.Lock()

    def of_files(self, root: Path, files: Sequence[Path]) -> str:
        """Return one digest over the relative names and contents of files, in the order of their names.

        Args:
            root: the folder that names are relative to; every file is in it.
            files: in any order.
        """
        known = self._read_memo()
        total = hashlib.sha256()
        for file in sorted(files):
            status = file.stat()
            identity = f"{file.resolve()}|{status.st_size}|{status.st_mtime_ns}|{status.st_ctime_ns}|{status.st_ino}"
            if identity not in known:
                with file.open("rb") as stream:
                    known[identity] = hashlib.file_digest(stream, "sha256").hexdigest()
                self._remember(identity, known[identity])
            total.update(json.dumps([file.relative_to(root).as_posix(), known[identity]]).encode())
        return total.hexdigest()

    def _read_memo(self) -> dict[str, str]:
        if self._memo is None or not self._memo.exists():
            return {}
        try:
            known: dict[str, str] = json.loads(self._memo.read_text())
        except ValueError:
            return {}  # a damaged memo: hash again
        return known

    def _remember(self, identity: str, digest: str) -> None:
        """Add a digest to those that other threads have remembered meanwhile."""
        if self._memo is None:
            return
        try:
            self._memo.parent.mkdir(parents=True, exist_ok=True)
            with self._writing, atomic_write(self._memo) as file:
                file.write(json.dumps({**self._read_memo(), identity: digest}).encode())
        except OSError as error:
            log.warning("cannot remember the digests, so the next start hashes again", reason=str(error))
