"""Run again what failed in a job that has ended: the failed texts, and the chunks that it never came to."""

import json
import time

from sqlalchemy import Connection, select, update

from semel.db import Database
from semel.errors import ConflictError, InvalidTextError, NotFoundError, TextTooLongError
from semel.tasks.jobs.schema import chunks, jobs, webhooks
from semel.values.job import ENDED, JobStatus

_UNRUN = ("cancelled", "pending", "sent")
"""Pending in a job that has ended: its worker died after that."""

_PERMANENT = (InvalidTextError.code, TextTooLongError.code)


def retry(db: Database, job_id: str, *, window_s: float) -> None:
    """Put an ended job back in progress; where nothing can run again, nothing changes.

    A text that is empty, not Unicode or too long would fail again and keeps its error.

    Args:
        window_s: the job must be done this long from now.

    Raises:
        NotFoundError, ConflictError: the job has not ended, or its upload was never complete.
    """
    with db.write(reserve=True) as conn:
        held = jobs.c.id == job_id
        row = conn.execute(select(jobs.c.status, jobs.c.in_progress_at).where(held).with_for_update()).first()
        if row is None:
            raise NotFoundError("job", job_id)
        if row.status not in ENDED:
            raise ConflictError(f"job {job_id} is {row.status}; only one that has ended can be retried")
        if row.in_progress_at is None:
            raise ConflictError(f"the upload of job {job_id} was never complete; submit it again")
        abandoned = (chunks.c.state == "running") & (chunks.c.lease_until < time.time())
        failed, reopened = _reopen_failed(conn, job_id)
        unrun = conn.execute(
            update(chunks)
            .where(chunks.c.job_id == job_id, chunks.c.state.in_(_UNRUN) | abandoned)
            .values(state="pending", attempts=0, lease_owner=None)
        ).rowcount
        if not failed and not unrun:
            return
        now = time.time()
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
    """Make the chunks with failed texts pending again; how many texts, and how many chunks."""
    failed = reopened = 0
    has_errors = (chunks.c.job_id == job_id) & (chunks.c.state == "done") & (chunks.c.errors_json != "{}")
    columns = (chunks.c.position, chunks.c.errors_json)
    for row in conn.execute(select(*columns).where(has_errors)).all():
        errors: dict[str, list[str]] = json.loads(row.errors_json)
        stay = {i: error for i, error in errors.items() if error[0] in _PERMANENT}
        if len(stay) == len(errors):
            continue
        here = (chunks.c.job_id == job_id) & (chunks.c.position == row.position)
        conn.execute(update(chunks).where(here).values(state="pending", attempts=0, errors_json=json.dumps(stay)))
        failed += len(errors) - len(stay)
        reopened += 1
    return failed, reopened
