"""OpenAI Batches: a file of requests, its jobs and its output files. Every change of state is one transaction.

    validating → in_progress → finalizing → completed
    validating → failed        validating or in_progress → cancelling → cancelled, or finalizing → expired

The process that works on a batch holds a lease on it, so API processes share the work and take over from one that dies.
"""

import json
import uuid
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, func, or_, select, true, tuple_, update

from semel.db import Database
from semel.errors import ConflictError, NotFoundError
from semel.tasks.jobs.schema import batches
from semel.values.job import ENDED, NOBODY, OPEN, JobStatus, Submitter

_MOST_SWEPT = 500
"""Batches that one sweep deletes."""

_LEASE_S = 15.0

_CAN_STOP = (JobStatus.VALIDATING, JobStatus.IN_PROGRESS)
"""The states that can be cancelled. While the output is written, for some seconds, all work is already done."""


@dataclass(frozen=True)
class LineError:
    """What is wrong with a line of the input file; `line` counts from 1 and is None for the file as a whole."""

    code: str
    message: str
    line: int | None = None
    param: str | None = None


@dataclass(frozen=True)
class Batch:
    """A Batch as OpenAI's API defines it. Times are Unix seconds.

    Attributes:
        output_expires_s: how long the output files are kept; None for the server's default.
        jobs: ids of its jobs, once every line is in a job.
        inputs: number of texts and pairs in all lines.
        total, completed, failed: numbers of lines.
    """

    id: str
    status: JobStatus
    endpoint: str
    input_file_id: str
    completion_window: str
    created_at: float
    expires_at: float
    model: str | None = None
    output_file_id: str | None = None
    error_file_id: str | None = None
    output_expires_s: float | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    errors: tuple[LineError, ...] = ()
    jobs: tuple[str, ...] = ()
    submitter: Submitter = NOBODY
    inputs: int = 0
    total: int = 0
    completed: int = 0
    failed: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    in_progress_at: float | None = None
    finalizing_at: float | None = None
    completed_at: float | None = None
    failed_at: float | None = None
    expired_at: float | None = None
    cancelling_at: float | None = None
    cancelled_at: float | None = None


class BatchStore:
    """Batches by id."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._visible: ColumnElement[bool] = true()

    def within(self, namespace: str) -> "BatchStore":
        """The same store for those for whom only the batches of a namespace exist."""
        scoped = copy(self)
        scoped._visible = batches.c.namespace == namespace
        return scoped

    def create(
        self,
        *,
        endpoint: str,
        input_file_id: str,
        completion_window: str,
        window_s: float,
        metadata: dict[str, str],
        output_expires_s: float | None,
        submitter: Submitter = NOBODY,
    ) -> Batch:
        """Create a batch in state `validating`.

        Args:
            window_s: seconds until it expires.
        """
        now = self._db.now()
        row = {
            "id": f"batch_{uuid.uuid4().hex}",
            "status": JobStatus.VALIDATING.value,
            "endpoint": endpoint,
            "input_file_id": input_file_id,
            "completion_window": completion_window,
            "output_expires_s": output_expires_s,
            "metadata_json": json.dumps(metadata),
            "owner": submitter.owner,
            "share": submitter.share,
            "namespace": submitter.namespace,
            "private": submitter.private,
            "errors_json": "[]",
            "jobs_json": "[]",
            "lease_until": 0.0,
            "created_at": now,
            "expires_at": now + window_s,
            **dict.fromkeys(["inputs", "total", "completed", "failed", "input_tokens", "cached_tokens"], 0),
        }
        with self._db.write() as conn:
            conn.execute(batches.insert().values(row))
        return self.get(str(row["id"]))

    def get(self, batch_id: str) -> Batch:
        """The batch with this id. Raises NotFoundError."""
        with self._db.read() as conn:
            row = conn.execute(select(batches).where(batches.c.id == batch_id, self._visible)).first()
        if row is None:
            raise NotFoundError("batch", batch_id)
        return _batch(row)

    def list_batches(self, *, limit: int, after: str | None = None) -> list[Batch]:
        """Batches, the newest first.

        Args:
            after: id of the last batch on the previous page.

        Raises:
            NotFoundError: `after` is no batch.
        """
        newest = (batches.c.created_at.desc(), batches.c.id.desc())
        query = select(batches).where(self._visible).order_by(*newest).limit(limit)
        if after is not None:
            last = self.get(after)
            place: Any = (last.created_at, last.id)
            query = query.where(tuple_(batches.c.created_at, batches.c.id) < place)
        with self._db.read() as conn:
            return [_batch(row) for row in conn.execute(query)]

    # Working

    def lease(self, *, owner: str) -> list[Batch]:
        """Take or renew a lease on every open batch that no other owner has a lease on; the oldest first."""
        now = self._db.now()
        free = or_(batches.c.lease_owner == owner, batches.c.lease_until < now)
        with self._db.read() as conn:
            if conn.execute(select(batches.c.id).where(batches.c.status.in_(OPEN)).limit(1)).first() is None:
                return []
        with self._db.write(reserve=True) as conn:
            rows = conn.execute(
                update(batches)
                .where(batches.c.status.in_(OPEN), free)
                .values(lease_owner=owner, lease_until=now + _LEASE_S)
                .returning(batches)
            ).all()
        return sorted((_batch(row) for row in rows), key=lambda batch: batch.created_at)

    def renew(self, batch_id: str, *, owner: str) -> bool:
        """Extend the lease; False if it was lost or the batch is gone."""
        return self._change(batch_id, owner, lease_until=self._db.now() + _LEASE_S)

    def give_back(self, *, owner: str) -> None:
        """Release every lease of an owner that stops."""
        with self._db.write(reserve=True) as conn:
            conn.execute(update(batches).where(batches.c.lease_owner == owner).values(lease_until=0.0))

    def fail(self, batch_id: str, errors: Sequence[LineError], *, owner: str) -> bool:
        """Record that the input cannot be used, or the output not written; False if the lease was lost."""
        text = json.dumps([vars(error) for error in errors])
        return self._move(batch_id, OPEN, JobStatus.FAILED, owner, errors_json=text)

    def refuse(self, batch_id: str, errors: Sequence[LineError], *, owner: str) -> bool:
        """Fail a batch for its invalid lines; False if it was cancelled in the meantime and so ends as cancelled."""
        text = json.dumps([vars(error) for error in errors])
        return self._move(batch_id, (JobStatus.VALIDATING,), JobStatus.FAILED, owner, errors_json=text)

    def start(self, batch_id: str, *, model: str, total: int, inputs: int, jobs: Sequence[str], owner: str) -> bool:
        """Record that every line is valid and in a job; False if the batch was cancelled or the lease was lost."""
        return self._move(
            batch_id,
            (JobStatus.VALIDATING,),
            JobStatus.IN_PROGRESS,
            owner,
            model=model,
            total=total,
            inputs=inputs,
            jobs_json=json.dumps(list(jobs)),
        )

    def progress(self, batch_id: str, *, completed: int, failed: int, owner: str) -> bool:
        """Record how many lines are done so far; False if the lease was lost."""
        return self._change(batch_id, owner, completed=completed, failed=failed)

    def finalize(self, batch_id: str, *, owner: str) -> bool:
        """Record that the jobs have ended and the output is being written; False if the batch was cancelled."""
        return self._move(batch_id, (JobStatus.IN_PROGRESS,), JobStatus.FINALIZING, owner)

    def end(
        self,
        batch_id: str,
        status: JobStatus,
        *,
        owner: str,
        completed: int = 0,
        failed: int = 0,
        input_tokens: int = 0,
        cached_tokens: int = 0,
        output_file_id: str | None = None,
        error_file_id: str | None = None,
    ) -> bool:
        """Record the last state with the output files and counts; False if the lease was lost."""
        return self._move(
            batch_id,
            OPEN,
            status,
            owner,
            completed=completed,
            failed=failed,
            input_tokens=input_tokens,
            cached_tokens=cached_tokens,
            output_file_id=output_file_id,
            error_file_id=error_file_id,
        )

    def _move(self, batch_id: str, before: Sequence[JobStatus], status: JobStatus, owner: str, **values: Any) -> bool:
        states = [state.value for state in before]
        changed = {"status": status.value, f"{status.value}_at": self._db.now(), **values}
        return self._change(batch_id, owner, batches.c.status.in_(states), **changed)

    def _change(self, batch_id: str, owner: str, *where: Any, **values: Any) -> bool:
        ours = (batches.c.id == batch_id) & (batches.c.lease_owner == owner)
        with self._db.write(reserve=True) as conn:
            changed = update(batches).where(ours, *where).values(values).returning(batches.c.id)
            return conn.execute(changed).first() is not None

    def cancel(self, batch_id: str) -> Batch:
        """Stop a batch; the lines that are done go into the output file.

        Raises:
            NotFoundError: there is no such batch.
            ConflictError: the batch has ended, or its output is being written.
        """
        states = [state.value for state in _CAN_STOP]
        with self._db.write(reserve=True) as conn:
            conn.execute(
                update(batches)
                .where(batches.c.id == batch_id, self._visible, batches.c.status.in_(states))
                .values(status=JobStatus.CANCELLING.value, cancelling_at=self._db.now())
            )
        batch = self.get(batch_id)
        if batch.status not in (JobStatus.CANCELLING, JobStatus.CANCELLED):
            raise ConflictError(f"batch {batch_id} is {batch.status} and cannot be cancelled any more")
        return batch

    def sweep(self, *, retention_s: float) -> int:
        """Delete some of the batches that ended longer ago than this; returns their number."""
        ended_at = func.coalesce(*(batches.c[f"{status}_at"] for status in ENDED), batches.c.created_at)
        old = batches.c.status.in_(ENDED) & (ended_at < self._db.now() - retention_s)
        with self._db.read() as conn:
            ids = list(conn.execute(select(batches.c.id).where(old).limit(_MOST_SWEPT)).scalars())
        if ids:
            with self._db.write(reserve=True) as conn:
                conn.execute(batches.delete().where(batches.c.id.in_(ids), old))
        return len(ids)


def _batch(row: Any) -> Batch:
    copied = {name: getattr(row, name) for name in Batch.__dataclass_fields__ if hasattr(row, name)}
    return Batch(
        **{
            **copied,
            "status": JobStatus(row.status),
            "metadata": json.loads(row.metadata_json),
            "submitter": Submitter(row.owner, row.share, row.namespace, row.private),
            "errors": tuple(LineError(**error) for error in json.loads(row.errors_json)),
            "jobs": tuple(json.loads(row.jobs_json)),
        }
    )
