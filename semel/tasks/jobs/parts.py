"""A look inside one job, for people: its chunks and its failed texts. Workers use `semel.tasks.jobs.chunks`."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from sqlalchemy import func, select, tuple_

from semel.db import Database
from semel.tasks.jobs.rows import outcomes_of, unpack_errors, unpack_extras, unpack_texts
from semel.tasks.jobs.schema import chunks
from semel.values.text import Extra, Input, ItemError, Outcome


@dataclass(frozen=True)
class ChunkView:
    """The present state of one chunk.

    Attributes:
        state: pending, sent, running, done or cancelled.
        failed: number of its texts that have an error.
        worker: id of the worker that holds it; empty if none does.
        sent_at: when its last message was sent, Unix seconds.
    """

    position: int
    state: str
    first_index: int
    texts: int
    failed: int
    attempts: int
    worker: str
    sent_at: float | None


@dataclass(frozen=True)
class FailedText:
    """A text of a job that has no vector, the other fields of its row, and why it failed."""

    index: int
    text: Input
    extra: Extra | None
    error: ItemError


class JobParts:
    """Reads chunks; changes nothing."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def count_by_state(self, job_id: str) -> dict[str, int]:
        """The number of chunks in each state; states without a chunk are left out."""
        query = select(chunks.c.state, func.count()).where(chunks.c.job_id == job_id).group_by(chunks.c.state)
        with self._db.read() as conn:
            return {state: int(count) for state, count in conn.execute(query)}

    def running(self, places: Collection[tuple[str, int]]) -> set[tuple[str, int]]:
        """The subset of `places` (job id, position) whose chunks a worker holds."""
        if not places:
            return set()
        these = tuple_(chunks.c.job_id, chunks.c.position).in_(list(places))
        with self._db.read() as conn:
            rows = conn.execute(select(chunks.c.job_id, chunks.c.position).where(these, chunks.c.state == "running"))
            return {(row.job_id, row.position) for row in rows}

    def chunks(self, job_id: str, *, after: int, limit: int) -> list[ChunkView]:
        """The chunks of a job by position.

        Args:
            after: position of the last chunk on the previous page, or -1.
        """
        names = (
            "position", "state", "first_index", "texts", "errors_json", "outcomes", "attempts", "lease_owner", "sent_at"
        )  # fmt: skip
        query = (
            select(*(chunks.c[name] for name in names))
            .where(chunks.c.job_id == job_id, chunks.c.position > after)
            .order_by(chunks.c.position)
            .limit(limit)
        )
        with self._db.read() as conn:
            rows = conn.execute(query).all()
        return [
            ChunkView(
                position=row.position,
                state=row.state,
                first_index=row.first_index,
                texts=row.texts,
                failed=outcomes_of(row).count(Outcome.FAILED) or len(unpack_errors(row.errors_json)),
                attempts=row.attempts,
                worker=row.lease_owner or "",
                sent_at=row.sent_at,
            )
            for row in rows
        ]

    def failed(self, job_id: str, *, after: int = -1, limit: int) -> list[FailedText]:
        """The failed texts of a job by index.

        Args:
            after: index of the last text on the previous page, or -1.
        """
        found: list[FailedText] = []
        for failed in self._failed(job_id, after):
            if len(found) == limit:
                break
            found.append(failed)
        return found

    def _failed(self, job_id: str, after: int) -> Iterator[FailedText]:
        names = ("position", "first_index", "texts", "errors_json", "payload", "extras")
        last = -1
        while True:
            query = (
                select(*(chunks.c[name] for name in names))
                .where(chunks.c.job_id == job_id, chunks.c.position > last, chunks.c.errors_json != "{}")
                .where(chunks.c.first_index + chunks.c.texts > after + 1)
                .order_by(chunks.c.position)
                .limit(4)
            )
            with self._db.read() as conn:
                rows = conn.execute(query).all()
            if not rows:
                return
            for row in rows:
                texts, extras = unpack_texts(row.payload), unpack_extras(row.extras, row.texts)
                for i, error in sorted(unpack_errors(row.errors_json).items()):
                    if row.first_index + i > after:
                        yield FailedText(row.first_index + i, texts[i], extras[i], error)
            last = rows[-1].position
