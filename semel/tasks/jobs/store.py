"""The job store: jobs and their chunks as rows, and every change of state as one transaction.

A chunk goes pending → sent → running → done. `sent` means that a message was given to Redis; `running` that a worker
holds a lease. Whatever dies, the row says what is left to do, and `sweep` starts it again.
"""

import json
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import zstandard
from sqlalchemy import Connection, and_, exists, false, func, or_, select, true, tuple_, update

from semel.cache.keys import KEY_BYTES, unpack_keys
from semel.db import Database
from semel.errors import ConflictError, NotFoundError, TextTooLongError
from semel.tasks.jobs.schema import chunks, jobs, webhooks
from semel.tracing import tell, traceparent
from semel.values import (
    ENDED,
    OPEN,
    Counts,
    Extra,
    Found,
    IfNoWorker,
    Input,
    ItemError,
    Job,
    JobStatus,
    Lane,
    Outcome,
    Space,
    as_input,
)

OUTCOME_CODES = {
    Outcome.HIT: ord("h"),
    Outcome.COMPUTED: ord("c"),
    Outcome.COALESCED: ord("o"),
    Outcome.FAILED: ord("f"),
}
CODE_OUTCOMES = {code: outcome for outcome, code in OUTCOME_CODES.items()}

NO_KEY = bytes(KEY_BYTES)
"""Stands in the packed keys for a text that has none, so that no row shifts."""

WAITS = "it waits for one"
"""How the `why` of a job ends that no live worker can do."""

UPLOAD_SILENCE_S = 120.0
"""An upload that sent nothing for this long was cut off."""

ACTIVE = (JobStatus.VALIDATING.value, JobStatus.IN_PROGRESS.value)


@dataclass(frozen=True)
class NewChunk:
    """A slice of a job as it arrives. Item i has `keys[i]`, or NO_KEY and an error."""

    first_index: int
    keys: list[bytes]
    texts: list[Input]
    errors: dict[int, ItemError] = field(default_factory=dict)
    extras: Sequence[Extra | None] = ()


@dataclass(frozen=True)
class ChunkWork:
    """A chunk in the hands of the worker that leased it.

    Attributes:
        sent_at: when its message was sent, Unix seconds.
        before: outcomes of an earlier run; only what failed then is run again. Empty for a first run.
    """

    job_id: str
    position: int
    owner: str
    attempts: int
    first_index: int
    keys: list[bytes]
    errors: dict[int, ItemError]
    payload: bytes
    model: str
    prompt_name: str
    fingerprint: bytes
    lane: Lane
    truncate: bool
    sent_at: float | None = None
    before: Sequence[Outcome] = ()

    @cached_property
    def kept(self) -> set[int]:
        """Positions whose outcome of the earlier run stands."""
        return kept_of(self.before, self.errors)

    def texts(self) -> list[Input]:
        """Unpacked only when some are missing in the cache."""
        return chunk_texts(self.payload)


@dataclass(frozen=True)
class Added:
    """Of chunks that were added: texts that are done, and texts whose vectors were there.

    A chunk with one missing text goes to a worker as a whole, so `done` may be less than `present`.
    """

    done: int
    present: int


@dataclass(frozen=True)
class ChunkResult:
    """A finished chunk, or a slice of it: outcome and key of each item, errors by position in the slice.

    Attributes:
        extras: one for each item.
        skipped: texts of the payload that stand before the slice.
    """

    first_index: int
    keys: list[bytes]
    outcomes: list[Outcome]
    errors: dict[int, ItemError]
    payload: bytes
    extras: Sequence[Extra | None]
    skipped: int = 0

    def texts(self) -> list[Input]:
        """Needed only when the cache has lost a vector since (a damaged row)."""
        return chunk_texts(self.payload)[self.skipped : self.skipped + len(self.keys)]


@dataclass(frozen=True)
class Swept:
    """What `sweep` set right."""

    leases_expired: int = 0
    messages_lost: int = 0
    jobs_expired: int = 0
    jobs_deleted: int = 0
    uploads_cut_off: int = 0


class JobStore:
    """Jobs and chunks.

    Args:
        window_s: a job must be done this long after its creation.
        retention_s: how long an ended job, and the vectors it names, are kept.
    """

    def __init__(self, db: Database, *, window_s: float, retention_s: float) -> None:
        self._db = db
        self._window_s = window_s
        self._retention_s = retention_s

    # Submitting

    def create(
        self,
        space: Space,
        *,
        lane: Lane,
        device: str,
        why: str,
        truncate: bool,
        if_no_worker: IfNoWorker = "wait",
        metadata: dict[str, str] | None = None,
    ) -> Job:
        """A job without texts, in state `validating`."""
        now = time.time()
        row: dict[str, Any] = {
            "id": f"job_{uuid.uuid4().hex}",
            "status": JobStatus.VALIDATING.value,
            "model": space.model,
            "prompt_name": space.prompt_name,
            "fingerprint": space.fingerprint,
            "dim": space.dim,
            "lane": lane.value,
            "device": device,
            "first_device": device,
            "why": why,
            "truncate": truncate,
            "if_no_worker": if_no_worker,
            "touched_at": now,
            "created_at": now,
            "expires_at": now + self._window_s,
            "metadata_json": json.dumps(metadata or {}),
            "traceparent": traceparent(),
        }
        tell(job=row["id"])
        row |= dict.fromkeys(["total", "chunks", "chunks_done", *Counts.__dataclass_fields__], 0)
        with self._db.write() as conn:
            conn.execute(jobs.insert().values(row))
        return self.get(row["id"])

    def add_chunks(
        self, job: Job, new: Sequence[NewChunk], *, lookup: Callable[[Connection, Sequence[bytes]], Found]
    ) -> Added:
        """Append chunks; those whose texts are all in the cache are done at once and never queued.

        The look-up runs after the insert, inside the transaction: a prune that ran before it is seen, one that
        comes after it finds the keys in the chunk rows and spares them.

        Raises:
            ConflictError: the job takes no more texts (cancelled, expired).
        """
        now, done = time.time(), 0
        with self._db.write() as conn:
            held = conn.execute(
                update(jobs)
                .where(jobs.c.id == job.id, jobs.c.status == JobStatus.VALIDATING.value)
                .values(
                    chunks=jobs.c.chunks + len(new),
                    total=jobs.c.total + sum(len(c.keys) for c in new),
                    touched_at=now,
                )
                .returning(jobs.c.chunks)
            ).first()
            if held is None:
                raise ConflictError(f"job {job.id} takes no more texts: it was cancelled or has ended")
            first = held.chunks - len(new)
            conn.execute(chunks.insert(), [_chunk_row(job.id, first + i, c) for i, c in enumerate(new)])
            found = lookup(conn, [key for c in new for key in c.keys])
            at = 0
            for offset, chunk in enumerate(new):
                part = slice(at, at + len(chunk.keys))
                at = part.stop
                if all(p or i in chunk.errors for i, p in enumerate(found.present[part].tolist())):
                    part_found = Found(found.present[part], found.tokens[part], found.truncated[part])
                    done += _finish_hits(conn, job, first + offset, chunk, part_found)
        return Added(done, int(found.present.sum()))

    def touch(self, job_id: str) -> None:
        """A sign of life of an upload that has not filled a chunk yet."""
        with self._db.write(reserve=True) as conn:
            conn.execute(update(jobs).where(jobs.c.id == job_id).values(touched_at=time.time()))

    def seal(self, job_id: str) -> Job:
        """All texts are here."""
        now = time.time()
        with self._db.write(reserve=True) as conn:
            conn.execute(
                update(jobs)
                .where(jobs.c.id == job_id, jobs.c.status == JobStatus.VALIDATING.value)
                .values(status=JobStatus.IN_PROGRESS.value, in_progress_at=now)
            )
            self._end_if_done(conn, job_id)
        return self.get(job_id)

    def fail(self, job_id: str, error: ItemError) -> None:
        """End a job as failed; what was computed stays in the cache."""
        with self._db.write(reserve=True) as conn:
            self._end(conn, jobs.c.id == job_id, JobStatus.FAILED, error)

    # Reading

    def get(self, job_id: str) -> Job:
        """Raises NotFoundError."""
        with self._db.read() as conn:
            row = conn.execute(select(jobs).where(jobs.c.id == job_id)).first()
        if row is None:
            raise NotFoundError("job", job_id)
        return _job(row)

    def list_jobs(
        self, *, limit: int, after: str | None = None, status: JobStatus | None = None, model: str | None = None
    ) -> list[Job]:
        """The newest first; `after` is the id of the last job of the page before."""
        query = select(jobs).order_by(jobs.c.created_at.desc(), jobs.c.id.desc()).limit(limit)
        if status is not None:
            query = query.where(jobs.c.status == status.value)
        if model is not None:
            query = query.where(jobs.c.model == model)
        if after is not None:
            last = self.get(after)
            query = query.where(tuple_(jobs.c.created_at, jobs.c.id) < (last.created_at, last.id))
        with self._db.read() as conn:
            return [_job(row) for row in conn.execute(query)]

    def find(self, job_ids: Collection[str]) -> list[Job]:
        """Those of these jobs that there are, in no fixed order."""
        if not job_ids:
            return []
        with self._db.read() as conn:
            return [_job(row) for row in conn.execute(select(jobs).where(jobs.c.id.in_(job_ids)))]

    def list_open(self, *, limit: int) -> list[Job]:
        """Jobs that have not ended, the oldest first."""
        query = select(jobs).where(jobs.c.status.in_(OPEN)).order_by(jobs.c.created_at).limit(limit)
        with self._db.read() as conn:
            return [_job(row) for row in conn.execute(query)]

    def results(self, job_id: str, *, first: int = 0, stop: int | None = None) -> Iterator[ChunkResult]:
        """Finished chunks in order, a few rows at a time.

        Args:
            first, stop: chunks that hold a text of this range of positions in the job, and no others.
        """
        ends = chunks.c.first_index + chunks.c.texts
        in_range = (ends > first) & (true() if stop is None else chunks.c.first_index < stop)
        names = ("position", "first_index", "packed_keys", "outcomes", "errors_json", "payload", "extras")
        columns = [chunks.c[name] for name in names]
        last = -1
        while True:
            query = (
                select(*columns)
                .where(chunks.c.job_id == job_id, chunks.c.position > last, chunks.c.state == "done", in_range)
                .order_by(chunks.c.position)
                .limit(8)
            )
            with self._db.read() as conn:
                rows = conn.execute(query).all()
            for row in rows:
                keys = unpack_keys(row.packed_keys)
                extras = chunk_extras(row.extras, len(keys))
                errors = chunk_errors(row.errors_json)
                yield ChunkResult(row.first_index, keys, outcomes_of(row), errors, row.payload, extras)
                last = row.position
            if not rows:
                return

    def needed_keys(self, conn: Connection) -> Iterator[bytes]:
        """Packed keys of every job that has not expired: what `prune` must spare, read in its transaction."""
        last = ("", -1)
        while True:
            query = (
                select(chunks.c.job_id, chunks.c.position, chunks.c.packed_keys)
                .join(jobs, jobs.c.id == chunks.c.job_id)
                .where(jobs.c.expires_at > time.time(), tuple_(chunks.c.job_id, chunks.c.position) > last)
                .order_by(chunks.c.job_id, chunks.c.position)
                .limit(256)
            )
            rows = conn.execute(query).all()
            if not rows:
                return
            yield from (row.packed_keys for row in rows)
            last = (rows[-1].job_id, rows[-1].position)

    # Working

    def take_for_dispatch(
        self, *, lane: Lane, device: str, window: int, served: Collection[bytes] | None = None
    ) -> list[tuple[str, int]]:
        """Mark chunks as sent, until `window` are under way on this queue; the jobs take turns.

        Args:
            served: fingerprints that a live worker of this queue serves; others wait. None: nobody knows.

        Returns:
            (job id, position) of each, to be sent after this transaction has committed.
        """
        queue = (jobs.c.lane == lane.value) & (jobs.c.device == device) & jobs.c.status.in_(ACTIVE)
        known = true() if served is None else jobs.c.fingerprint.in_(served)
        waiting = and_(known, exists().where(chunks.c.job_id == jobs.c.id, chunks.c.state == "pending"))
        eligible = select(jobs.c.id).where(queue, waiting).order_by(jobs.c.created_at).limit(window)
        with self._db.read() as conn:
            if conn.execute(eligible).first() is None:
                return []
        with self._db.write(reserve=True) as conn:
            under_way = (
                select(chunks.c.job_id, func.count())
                .join(jobs, jobs.c.id == chunks.c.job_id)
                .where(queue, chunks.c.state.in_(("sent", "running")))
                .group_by(chunks.c.job_id)
            )
            load = {job_id: int(count) for job_id, count in conn.execute(under_way)}
            free = window - sum(load.values())
            pending = {row.id: _pending(conn, row.id, free) for row in conn.execute(eligible)} if free > 0 else {}
            picked = _take_turns(pending, load, free)
            return [place for place in picked if _mark_sent(conn, *place)]

    def traceparents(self, job_ids: Collection[str]) -> dict[str, str | None]:
        """The trace of the request that made each job."""
        with self._db.read() as conn:
            rows = conn.execute(select(jobs.c.id, jobs.c.traceparent).where(jobs.c.id.in_(job_ids)))
            return {row.id: row.traceparent for row in rows}

    def lease(self, job_id: str, position: int, *, owner: str, ttl_s: float) -> ChunkWork | None:
        """Take a chunk to work on it; None when it is done, taken, cancelled or gone."""
        now = time.time()
        free = or_(
            chunks.c.state.in_(("pending", "sent")), and_(chunks.c.state == "running", chunks.c.lease_until < now)
        )
        with self._db.write(reserve=True) as conn:
            row = conn.execute(
                update(chunks)
                .where(chunks.c.job_id == job_id, chunks.c.position == position, free)
                .where(exists().where(jobs.c.id == job_id, jobs.c.status.in_(ACTIVE)))
                .values(state="running", lease_owner=owner, lease_until=now + ttl_s, attempts=chunks.c.attempts + 1)
                .returning(chunks)
            ).first()
            if row is None:
                return None
            job = conn.execute(select(jobs).where(jobs.c.id == job_id)).one()
            if job.why.endswith(WAITS):
                why = f"{job.device}: it waited for a worker"
                conn.execute(update(jobs).where(jobs.c.id == job_id).values(why=why))
        return ChunkWork(
            job_id=job_id,
            position=position,
            owner=owner,
            attempts=row.attempts,
            first_index=row.first_index,
            keys=unpack_keys(row.packed_keys),
            errors=chunk_errors(row.errors_json),
            payload=row.payload,
            model=job.model,
            prompt_name=job.prompt_name,
            fingerprint=job.fingerprint,
            lane=Lane(job.lane),
            truncate=job.truncate,
            sent_at=row.sent_at,
            before=outcomes_of(row),
        )

    def renew(self, in_hand: Sequence[tuple[str, int]], *, owner: str, ttl_s: float) -> None:
        """Extend the leases of the chunks (job id, position) that a worker has in hand, and of no others."""
        if not in_hand:
            return
        places = tuple_(chunks.c.job_id, chunks.c.position).in_(in_hand)
        held = places & (chunks.c.state == "running") & (chunks.c.lease_owner == owner)
        with self._db.write(reserve=True) as conn:
            conn.execute(update(chunks).where(held).values(lease_until=time.time() + ttl_s))

    def is_active(self, job_id: str) -> bool:
        """Whether its chunks should still be worked on."""
        with self._db.read() as conn:
            return conn.execute(select(jobs.c.status).where(jobs.c.id == job_id)).scalar() in ACTIVE

    def finish(
        self, work: ChunkWork, outcomes: Sequence[Outcome], errors: dict[int, ItemError], *, truncated: int, tokens: int
    ) -> bool:
        """Record what became of each text; False when the lease was lost to another worker."""
        with self._db.write(reserve=True) as conn:
            ours = _held_by(work)
            if not conn.execute(update(chunks).where(ours).values(_outcome_values(outcomes, errors))).rowcount:
                return False
            fresh = [outcome for i, outcome in enumerate(outcomes) if i not in work.kept]
            _count(conn, work.job_id, fresh, truncated=truncated, tokens=tokens)
            self._end_if_done(conn, work.job_id)
        return True

    def give_back(self, work: ChunkWork) -> None:
        """Return a chunk unfinished: it is pending again, or cancelled when its job was."""
        with self._db.write(reserve=True) as conn:
            active = exists().where(jobs.c.id == work.job_id, jobs.c.status.in_(ACTIVE))
            conn.execute(update(chunks).where(_held_by(work), active).values(state="pending", lease_owner=None))
            conn.execute(update(chunks).where(_held_by(work)).values(state="cancelled", lease_owner=None))
            self._end_if_done(conn, work.job_id)

    def give_back_uncharged(self, places: Sequence[tuple[str, int]], *, owner: str) -> None:
        """Return chunks (job id, position) of a worker that ends through no fault of theirs."""
        if not places:
            return
        held = and_(
            tuple_(chunks.c.job_id, chunks.c.position).in_(places),
            chunks.c.state == "running",
            chunks.c.lease_owner == owner,
        )
        active = exists().where(jobs.c.id == chunks.c.job_id, jobs.c.status.in_(ACTIVE))
        with self._db.write(reserve=True) as conn:
            free = {"state": "pending", "lease_owner": None, "attempts": chunks.c.attempts - 1}
            conn.execute(update(chunks).where(held, active).values(free))

    # Ending

    def cancel(self, job_id: str) -> Job:
        """Stop a job: chunks that no worker holds are cancelled now, the others when they notice.

        Raises:
            NotFoundError, ConflictError: the job has ended.
        """
        now = time.time()
        with self._db.write(reserve=True) as conn:
            changed = conn.execute(
                update(jobs)
                .where(jobs.c.id == job_id, jobs.c.status.in_(ACTIVE))
                .values(status=JobStatus.CANCELLING.value, cancelling_at=now)
            ).rowcount
            if changed:
                _cancel_waiting(conn, chunks.c.job_id == job_id)
                self._end_if_done(conn, job_id)
        job = self.get(job_id)
        if not changed and job.status not in (JobStatus.CANCELLING, JobStatus.CANCELLED):
            raise ConflictError(f"job {job_id} is {job.status} and cannot be cancelled any more")
        return job

    def delete(self, job_id: str) -> None:
        """Forget a job that has ended; its vectors stay in the cache until they are pruned.

        Raises:
            NotFoundError, ConflictError: the job has not ended.
        """
        with self._db.write(reserve=True) as conn:
            gone = conn.execute(jobs.delete().where(jobs.c.id == job_id, jobs.c.status.in_(ENDED))).rowcount
            if gone:
                conn.execute(chunks.delete().where(chunks.c.job_id == job_id))
                conn.execute(webhooks.delete().where(webhooks.c.job_id == job_id))
        if not gone:
            raise ConflictError(f"job {job_id} is {self.get(job_id).status}; cancel it first")

    def _end_if_done(self, conn: Connection, job_id: str) -> None:
        self._end(
            conn,
            (jobs.c.id == job_id)
            & (jobs.c.status == JobStatus.IN_PROGRESS.value)
            & (jobs.c.chunks_done == jobs.c.chunks),
            JobStatus.COMPLETED,
        )
        self._end(conn, (jobs.c.id == job_id) & _cancelled(), JobStatus.CANCELLED)

    def _end(self, conn: Connection, which: Any, status: JobStatus, error: ItemError | None = None) -> int:
        now = time.time()
        values: dict[str, Any] = {
            "status": status.value,
            f"{status.value}_at": now,
            "expires_at": now + self._retention_s,
        }
        if status is JobStatus.COMPLETED:
            values["finalizing_at"] = now  # nothing is left to write: results are read from the cache
        if error is not None:
            values["error_json"] = json.dumps([error.code, error.message])
        ids = [
            row.id
            for row in conn.execute(
                update(jobs).where(which, jobs.c.status.not_in(ENDED)).values(values).returning(jobs.c.id)
            )
        ]
        if ids and status is not JobStatus.COMPLETED:
            _cancel_waiting(conn, chunks.c.job_id.in_(ids))
        return len(ids)

    # Maintenance

    def sweep(self, *, empty_queues: Sequence[tuple[Lane, str]], resend_after_s: float, max_attempts: int) -> Swept:
        """Set right what a dead process, an emptied Redis or the clock left behind.

        Args:
            empty_queues: queues that hold no message: what was sent there a while ago and runs nowhere is lost.
            resend_after_s: how long a message may be on its way.
            max_attempts: a chunk whose worker died this often fails, or it would kill workers for ever.
        """
        now = time.time()
        stale = (chunks.c.state == "running") & (chunks.c.lease_until < now)
        lost = (chunks.c.state == "sent") & (chunks.c.sent_at < now - resend_after_s)
        late = (jobs.c.expires_at < now) & jobs.c.status.in_((*ACTIVE, JobStatus.CANCELLING.value))
        silent = (jobs.c.status == JobStatus.VALIDATING.value) & (jobs.c.touched_at < now - UPLOAD_SILENCE_S)
        old = (jobs.c.expires_at < now) & jobs.c.status.in_(ENDED)
        quiet = or_(
            false(), *((jobs.c.lane == lane.value) & (jobs.c.device == device) for lane, device in empty_queues)
        )
        lost &= chunks.c.job_id.in_(select(jobs.c.id).where(quiet))
        with self._db.read() as conn:
            questions = [select(chunks.c.job_id).where(stale), select(chunks.c.job_id).where(lost)]
            questions += [select(jobs.c.id).where(or_(late, silent, old, _cancelled()))]
            if not any(conn.execute(q.limit(1)).first() for q in questions):
                return Swept()
        with self._db.write(reserve=True) as conn:
            expired = self._free_stale(conn, stale, max_attempts)
            resent = conn.execute(update(chunks).where(lost).values(state="pending")).rowcount
            cut = self._end(
                conn,
                silent,
                JobStatus.FAILED,
                ItemError(
                    "upload_cut_off",
                    "the upload ended before it was complete; submit it again, what was computed is in the cache",
                ),
            )
            self._end(conn, _cancelled(), JobStatus.CANCELLED)
            ended = self._end(conn, late, JobStatus.EXPIRED)
            gone = [row.id for row in conn.execute(select(jobs.c.id).where(old))]
            conn.execute(chunks.delete().where(chunks.c.job_id.in_(gone)))
            conn.execute(webhooks.delete().where(webhooks.c.job_id.in_(gone)))
            conn.execute(jobs.delete().where(jobs.c.id.in_(gone)))
        return Swept(expired, resent, ended, len(gone), cut)

    def _free_stale(self, conn: Connection, stale: Any, max_attempts: int) -> int:
        names = ("job_id", "position", "attempts", "texts", "outcomes", "errors_json")
        rows = conn.execute(select(*(chunks.c[name] for name in names)).where(stale)).all()
        for row in rows:
            # Only the row that was read: its worker may have finished, or another sweep may have freed it, since.
            here = (chunks.c.job_id == row.job_id) & (chunks.c.position == row.position) & stale
            here &= chunks.c.attempts == row.attempts
            if row.attempts < max_attempts:
                conn.execute(update(chunks).where(here).values(state="pending", lease_owner=None))
                self._end_if_done(conn, row.job_id)
                continue
            error = ItemError("worker_lost", f"{row.attempts} workers died while they worked on this chunk")
            before, errors = outcomes_of(row), chunk_errors(row.errors_json)
            kept = kept_of(before, errors)
            outcomes = [before[i] if i in kept else Outcome.FAILED for i in range(row.texts)]
            errors |= {i: error for i in range(row.texts) if i not in kept}
            if not conn.execute(update(chunks).where(here).values(_outcome_values(outcomes, errors))).rowcount:
                continue
            _count(conn, row.job_id, [o for i, o in enumerate(outcomes) if i not in kept], truncated=0, tokens=0)
            self._end_if_done(conn, row.job_id)
        return len(rows)


def _chunk_row(job_id: str, position: int, chunk: NewChunk) -> dict[str, Any]:
    return {
        "job_id": job_id,
        "position": position,
        "state": "pending",
        "attempts": 0,
        "first_index": chunk.first_index,
        "texts": len(chunk.keys),
        "errors_json": _errors_json(chunk.errors),
        "packed_keys": b"".join(chunk.keys),
        "payload": _pack(chunk.texts),
        "extras": _pack(chunk.extras) if any(chunk.extras) else None,
    }


def kept_of(before: Sequence[Outcome], errors: Mapping[int, ItemError]) -> set[int]:
    """In a retry: positions whose outcome stands, since they did not fail, or would fail again and kept their error."""
    return {i for i, outcome in enumerate(before) if outcome is not Outcome.FAILED or i in errors}


def outcomes_of(row: Any) -> list[Outcome]:
    """Of a chunk's row; empty when it has not run."""
    return [CODE_OUTCOMES[code] for code in row.outcomes or b""]


def _pack(values: Sequence[Any]) -> bytes:
    try:
        text = json.dumps(values, ensure_ascii=False, default=str).encode()  # str: dates and such, from Parquet
    except UnicodeEncodeError:  # half a surrogate pair in a carried field
        text = json.dumps(values, default=str).encode()
    return zstandard.compress(text, 1)


def chunk_texts(payload: bytes) -> list[Input]:
    """The texts or pairs of a chunk's row; "" for one that could not be read."""
    return [as_input(item) for item in json.loads(zstandard.decompress(payload))]


def chunk_extras(packed: bytes | None, count: int) -> list[Extra | None]:
    """What the texts of a chunk's row brought along, one for each."""
    if packed is None:
        return [None] * count
    return [None if pair is None else Extra(*pair) for pair in json.loads(zstandard.decompress(packed))]


def _finish_hits(conn: Connection, job: Job, position: int, chunk: NewChunk, found: Found) -> int:
    """Record a chunk whose texts were all there; how many hits."""
    errors = dict(chunk.errors)
    if not job.truncate:
        too_long = TextTooLongError()
        errors |= {i: ItemError.of(too_long) for i in found.truncated.nonzero()[0].tolist()}
    outcomes = [Outcome.FAILED if i in errors else Outcome.HIT for i in range(len(chunk.keys))]
    here = (chunks.c.job_id == job.id) & (chunks.c.position == position)
    conn.execute(update(chunks).where(here).values(_outcome_values(outcomes, errors)))
    _count(conn, job.id, outcomes, truncated=int(found.truncated.sum()), tokens=int(found.tokens.sum()))
    return outcomes.count(Outcome.HIT)


def _outcome_values(outcomes: Sequence[Outcome], errors: dict[int, ItemError]) -> dict[str, Any]:
    return {
        "state": "done",
        "lease_owner": None,
        "outcomes": bytes(OUTCOME_CODES[o] for o in outcomes),
        "errors_json": _errors_json(errors),
    }


def _count(conn: Connection, job_id: str, outcomes: Sequence[Outcome], *, truncated: int, tokens: int) -> None:
    added = {outcome.value: outcomes.count(outcome) for outcome in Outcome}
    added |= {"truncated": truncated, "tokens": tokens, "chunks_done": 1}
    values: dict[str, Any] = {name: jobs.c[name] + n for name, n in added.items()}
    values["first_result_at"] = func.coalesce(jobs.c.first_result_at, time.time())
    conn.execute(update(jobs).where(jobs.c.id == job_id).values(values))


def _cancelled() -> Any:
    """Jobs that are being cancelled and have nothing running any more."""
    running = exists().where(chunks.c.job_id == jobs.c.id, chunks.c.state == "running")
    return (jobs.c.status == JobStatus.CANCELLING.value) & ~running


def _held_by(work: ChunkWork) -> Any:
    return (
        (chunks.c.job_id == work.job_id)
        & (chunks.c.position == work.position)
        & (chunks.c.state == "running")
        & (chunks.c.lease_owner == work.owner)
        & (chunks.c.attempts == work.attempts)
    )


def _cancel_waiting(conn: Connection, which: Any) -> None:
    conn.execute(update(chunks).where(which, chunks.c.state.in_(("pending", "sent"))).values(state="cancelled"))


def _pending(conn: Connection, job_id: str, limit: int) -> list[int]:
    query = select(chunks.c.position).where(chunks.c.job_id == job_id, chunks.c.state == "pending")
    return list(conn.execute(query.order_by(chunks.c.position).limit(limit)).scalars())


def _take_turns(pending: dict[str, list[int]], load: dict[str, int], free: int) -> list[tuple[str, int]]:
    """The job with the least under way goes first, again and again."""
    picked: list[tuple[str, int]] = []
    while len(picked) < free and any(pending.values()):
        job_id = min((j for j, rest in pending.items() if rest), key=lambda j: load.get(j, 0))
        picked.append((job_id, pending[job_id].pop(0)))
        load[job_id] = load.get(job_id, 0) + 1
    return picked


def _mark_sent(conn: Connection, job_id: str, position: int) -> bool:
    here = (chunks.c.job_id == job_id) & (chunks.c.position == position) & (chunks.c.state == "pending")
    return bool(conn.execute(update(chunks).where(here).values(state="sent", sent_at=time.time())).rowcount)


def _errors_json(errors: dict[int, ItemError]) -> str:
    return json.dumps({str(i): [e.code, e.message] for i, e in errors.items()})


def chunk_errors(text: str) -> dict[int, ItemError]:
    """Of a chunk's row: position in the chunk → why this text has no vector."""
    return {int(i): ItemError(*pair) for i, pair in json.loads(text).items()}


def _job(row: Any) -> Job:
    same = {name: getattr(row, name) for name in Job.__dataclass_fields__ if hasattr(row, name)}
    return Job(
        **{
            **same,
            "status": JobStatus(row.status),
            "lane": Lane(row.lane),
            "counts": Counts(**{name: getattr(row, name) for name in Counts.__dataclass_fields__}),
            "error": ItemError(*json.loads(row.error_json)) if row.error_json else None,
            "metadata": json.loads(row.metadata_json),
        }
    )
