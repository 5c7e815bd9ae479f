"""What a key keeps on disk besides vectors, which all share: files, parts of uploads, and the texts of its jobs."""

import threading
import time

from sqlalchemy import func, select

from semel.db import Database
from semel.errors import QuotaExceededError
from semel.tasks.jobs.schema import chunks, files, jobs, upload_parts, uploads
from semel.values.job import Submitter

_KEPT_S = 1.0
"""A figure is at most this old. Files that arrive in the meantime are added to it; the texts of jobs are not."""


class DiskUse:
    """Bytes by key. Thread-safe."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._lock = threading.Lock()
        self._seen: dict[str, tuple[float, int]] = {}  # owner → (monotonic seconds, bytes)

    def check(self, submitter: Submitter, *, more: int = 0, arrives_now: bool = True) -> None:
        """Check that a key may keep this many more bytes.

        Args:
            arrives_now: count them at once; False for bytes that are only announced.

        Raises:
            QuotaExceededError: it may not.
        """
        most = submitter.quota_bytes
        if most is None:
            return
        with self._lock:
            read_at, kept = self._seen.get(submitter.owner, (-_KEPT_S, 0))
            if time.monotonic() - read_at >= _KEPT_S:
                read_at, kept = time.monotonic(), self.bytes_of(submitter.owner)
            if kept + more > most:
                added = f", {more:,} more would be added," if more else ""
                raise QuotaExceededError(
                    f"this API key keeps {kept:,} bytes of files and texts of jobs{added} and it may keep {most:,}: "
                    "delete files or ended jobs"
                )
            self._seen[submitter.owner] = read_at, kept + (more if arrives_now else 0)

    def bytes_of(self, owner: str) -> int:
        """The bytes that a key keeps, compressed texts as they are stored."""
        of_texts = func.length(chunks.c.payload) + func.coalesce(func.length(chunks.c.extras), 0)
        sums = (
            select(func.sum(files.c.bytes)).where(files.c.owner == owner),
            select(func.sum(upload_parts.c.bytes))
            .join(uploads, uploads.c.id == upload_parts.c.upload_id)
            .where(uploads.c.owner == owner),
            select(func.sum(of_texts)).join(jobs, jobs.c.id == chunks.c.job_id).where(jobs.c.owner == owner),
        )
        with self._db.read() as conn:
            return sum(int(conn.execute(query).scalar() or 0) for query in sums)
