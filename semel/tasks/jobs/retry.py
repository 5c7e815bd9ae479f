"""Retries a job that has ended: runs its failed texts and its unfinished chunks again."""

import json

from sqlalchemy import Connection, select, update

from semel.clock import time_of
from semel.db import Database
from semel.errors import ConflictError, InvalidTextError, NotFoundError, TextTooLongError
from semel.tasks.jobs.schema import chunks, jobs, webhooks
from semel.values.job import ENDED, JobStatus

_UNFINISHED = ("cancelled", "pending", "sent")
"""States of unfinished chunks. A chunk of an ended job is pending if its worker died after the job ended."""

_PERMANENT = (InvalidTextError.code, TextTooLongError.code)


def retry(db: Database, job_id: str, *, window_s: float) -> None:
    """Put an ended job back in progress; nothing changes if no text can run again.

    A text that is empty, not Unicode or too long would fail again, so it keeps its error.

    Args:
        window_s: seconds from now until the job expires.

    Raises:
        NotFoundError: there is no such job.
        ConflictError: the job has not ended, or its upload was never completed.
    """
    with db.write(reserve=True) as conn:
        held = jobs.c.id == job_id
        row = conn.execute(select(jobs.c.status, jobs.c.in_progress_at).where(held).with_for_update()).first()
        if row is None:
            raise NotFoundError("job", job_id)
        if row.status not in ENDED:
            raise ConflictError(f"job {job_id} is {row.status}; only a job that has ended can be retried")
        if row.in_progress_at is None:
            raise ConflictError(f"the upload of job {job_id} was never completed; submit the job again")
        now = time_of(conn)
        abandoned = (chunks.c.state == "running") & (chunks.c.lease_until < now)
        failed, reopened = _reopen_failed(conn, job_id)
        unfinished = conn.execute(
            update(chunks)
            .where(chunks.c.job_id == job_id, chunks.c.state.in_(_UNFINISHED) | abandoned)
            .values(state="pending", attempts=0, tries=0, lease_owner=None)
        ).rowcount
        if not failed and not unfinished:
            return
        conn.execute(update(webhooks).where(webhooks.c.job_id == job_id).values(attempts=0, due_at=now))
        conn.execute(
            update(jobs)
            .where(held)
            .values(
                {
                    **dict.fromkeys([f"{status}_at" for status in (*ENDED, "cancelling", "finalizing")], None),
                    "status": JobStatus.IN_PROGRESS.value,
                    "expires_at": now + window_s,
                    "retried_at": now,
                    "error_json": None,
                    "failed": jobs.c.failed - failed,
                    "chunks_done": jobs.c.chunks_done - reopened,
                }
            )
        )


def _reopen_failed(conn: Connection, job_id: str) -> tuple[int, int]:
    """Make the chunks with failed texts pending again; returns the number of texts and of chunks."""
    failed = reopened = 0
    has_errors = (chunks.c.job_id == job_id) & (chunks.c.state == "done") & (chunks.c.errors_json != "{}")
    columns = (chunks.c.position, chunks.c.errors_json)
    for row in conn.execute(select(*columns).where(has_errors)).all():
        errors: dict[str, list[str]] = json.loads(row.errors_json)
        permanent = {i: error for i, error in errors.items() if error[0] in _PERMANENT}
        if len(permanent) == len(errors):
            continue
        here = (chunks.c.job_id == job_id) & (chunks.c.position == row.position)
        again = {"state": "pending", "attempts": 0, "tries": 0, "errors_json": json.dumps(permanent)}
        conn.execute(update(chunks).where(here).values(again))
        failed += len(errors) - len(permanent)
        reopened += 1
    return failed, reopened
