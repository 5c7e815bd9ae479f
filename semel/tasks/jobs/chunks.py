"""Chunks on their way through the workers: dispatched, leased, then finished or given back.

A chunk goes pending → sent → running → done; `semel.tasks.jobs.rows.ChunkState` explains the states.
"""

import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, exists, func, or_, select, true, tuple_, update

from semel.cache.keys import unpack_keys
from semel.db import Database
from semel.tasks.jobs.ending import count_chunk, end_if_done
from semel.tasks.jobs.rows import ACTIVE, ChunkState, ChunkWork, Place, done_values, outcomes_of, unpack_errors
from semel.tasks.jobs.schema import chunks, jobs
from semel.values.text import ItemError, Lane, Outcome


class ChunkStore:
    """Chunks by job id and position.

    Args:
        retention_s: how long a job that ends with one of its chunks is kept.
    """

    def __init__(self, db: Database, *, retention_s: float) -> None:
        self._db = db
        self._retention_s = retention_s

    def take_for_dispatch(
        self, *, lane: Lane, device: str, window: int, served: Collection[bytes] | None = None
    ) -> list[Place]:
        """Mark chunks as sent until `window` chunks are under way on this queue; the jobs take turns.

        Args:
            served: fingerprints that the live workers of this queue serve; chunks of other spaces wait. None if
                unknown: then any chunk may be sent.

        Returns:
            The chunks to send after this transaction has committed.
        """
        queue = (jobs.c.lane == lane.value) & (jobs.c.device == device) & jobs.c.status.in_(ACTIVE)
        servable = true() if served is None else jobs.c.fingerprint.in_(served)
        waiting = and_(servable, exists().where(chunks.c.job_id == jobs.c.id, chunks.c.state == ChunkState.PENDING))
        eligible = select(jobs.c.id).where(queue, waiting).order_by(jobs.c.created_at).limit(window)
        with self._db.read() as conn:
            if conn.execute(eligible).first() is None:
                return []
        with self._db.write(reserve=True) as conn:
            load = _under_way(conn, queue)
            free = window - sum(load.values())
            pending = {row.id: _pending(conn, row.id, free) for row in conn.execute(eligible)} if free > 0 else {}
            return [place for place in _take_turns(pending, load, free) if _mark_sent(conn, *place)]

    def traceparents(self, job_ids: Collection[str]) -> dict[str, str | None]:
        """The `traceparent` of the request that created each job, None if it was not traced."""
        with self._db.read() as conn:
            rows = conn.execute(select(jobs.c.id, jobs.c.traceparent).where(jobs.c.id.in_(job_ids)))
            return {row.id: row.traceparent for row in rows}

    def lease(self, job_id: str, position: int, *, owner: str, ttl_s: float) -> ChunkWork | None:
        """Lease a chunk to a worker; None if the chunk is done, leased to another worker, cancelled or gone."""
        now = time.time()
        waiting = chunks.c.state.in_((ChunkState.PENDING, ChunkState.SENT))
        abandoned = (chunks.c.state == ChunkState.RUNNING) & (chunks.c.lease_until < now)
        taken = {
            "state": ChunkState.RUNNING,
            "lease_owner": owner,
            "lease_until": now + ttl_s,
            "attempts": chunks.c.attempts + 1,
        }
        with self._db.write(reserve=True) as conn:
            row = conn.execute(
                update(chunks)
                .where(chunks.c.job_id == job_id, chunks.c.position == position, or_(waiting, abandoned))
                .where(exists().where(jobs.c.id == job_id, jobs.c.status.in_(ACTIVE)))
                .values(taken)
                .returning(chunks)
            ).first()
            if row is None:
                return None
            job = conn.execute(select(jobs).where(jobs.c.id == job_id)).one()
            if job.waits:
                served = {"waits": False, "why": f"{job.device}: the job waited for a worker"}
                conn.execute(update(jobs).where(jobs.c.id == job_id).values(served))
        return _work(row, job, owner)

    def renew(self, in_hand: Sequence[Place], *, owner: str, ttl_s: float) -> None:
        """Extend the leases of the chunks that a worker is working on, and no others."""
        if not in_hand:
            return
        with self._db.write(reserve=True) as conn:
            held = _held_by_owner(in_hand, owner)
            conn.execute(update(chunks).where(held).values(lease_until=time.time() + ttl_s))

    def finish(
        self,
        work: ChunkWork,
        outcomes: Sequence[Outcome],
        errors: Mapping[int, ItemError],
        *,
        truncated: int,
        tokens: int,
    ) -> bool:
        """Record the outcome of each text; False if the lease has passed to another worker, or the chunk has ended.

        Args:
            truncated, tokens: totals of the texts that this run settled.
        """
        with self._db.write(reserve=True) as conn:
            ours = _held_by(work)
            if not conn.execute(update(chunks).where(ours).values(done_values(outcomes, errors))).rowcount:
                return False
            fresh = [outcome for i, outcome in enumerate(outcomes) if i not in work.kept]
            count_chunk(conn, work.job_id, fresh, truncated=truncated, tokens=tokens)
            end_if_done(conn, work.job_id, retention_s=self._retention_s)
        return True

    def give_back(self, work: ChunkWork) -> None:
        """Return an unfinished chunk: it is pending again, or cancelled if its job is no longer active."""
        with self._db.write(reserve=True) as conn:
            active = exists().where(jobs.c.id == work.job_id, jobs.c.status.in_(ACTIVE))
            held, released = _held_by(work), {"lease_owner": None}
            conn.execute(update(chunks).where(held, active).values(state=ChunkState.PENDING, **released))
            conn.execute(update(chunks).where(held).values(state=ChunkState.CANCELLED, **released))
            end_if_done(conn, work.job_id, retention_s=self._retention_s)

    def give_back_uncharged(self, places: Sequence[Place], *, owner: str) -> None:
        """Return the chunks of a worker that ends through no fault of theirs, without counting the attempt."""
        if not places:
            return
        active = exists().where(jobs.c.id == chunks.c.job_id, jobs.c.status.in_(ACTIVE))
        with self._db.write(reserve=True) as conn:
            released = {"state": ChunkState.PENDING, "lease_owner": None, "attempts": chunks.c.attempts - 1}
            conn.execute(update(chunks).where(_held_by_owner(places, owner), active).values(released))


def _work(row: Any, job: Any, owner: str) -> ChunkWork:
    return ChunkWork(
        job_id=row.job_id,
        position=row.position,
        owner=owner,
        attempts=row.attempts,
        first_index=row.first_index,
        keys=unpack_keys(row.packed_keys),
        errors=unpack_errors(row.errors_json),
        payload=row.payload,
        model=job.model,
        prompt_name=job.prompt_name,
        fingerprint=job.fingerprint,
        lane=Lane(job.lane),
        truncate=job.truncate,
        sent_at=row.sent_at,
        before=outcomes_of(row),
    )


def _held_by(work: ChunkWork) -> ColumnElement[bool]:
    """Exactly this lease: after it has expired, the same worker may hold the chunk under a new one."""
    return _held_by_owner([(work.job_id, work.position)], work.owner) & (chunks.c.attempts == work.attempts)


def _held_by_owner(places: Sequence[Place], owner: str) -> ColumnElement[bool]:
    these = tuple_(chunks.c.job_id, chunks.c.position).in_(places)
    return and_(these, chunks.c.state == ChunkState.RUNNING, chunks.c.lease_owner == owner)


def _under_way(conn: Connection, queue: ColumnElement[bool]) -> dict[str, int]:
    """The number of chunks that are sent or running on a queue, by job."""
    query = (
        select(chunks.c.job_id, func.count())
        .join(jobs, jobs.c.id == chunks.c.job_id)
        .where(queue, chunks.c.state.in_((ChunkState.SENT, ChunkState.RUNNING)))
        .group_by(chunks.c.job_id)
    )
    return {job_id: int(count) for job_id, count in conn.execute(query)}


def _pending(conn: Connection, job_id: str, limit: int) -> list[int]:
    query = select(chunks.c.position).where(chunks.c.job_id == job_id, chunks.c.state == ChunkState.PENDING)
    return list(conn.execute(query.order_by(chunks.c.position).limit(limit)).scalars())


def _take_turns(pending: dict[str, list[int]], load: dict[str, int], free: int) -> list[Place]:
    """Pick chunks one by one, each from the job that has the fewest under way."""
    picked: list[Place] = []
    while len(picked) < free and any(pending.values()):
        job_id = min((j for j, rest in pending.items() if rest), key=lambda j: load.get(j, 0))
        picked.append((job_id, pending[job_id].pop(0)))
        load[job_id] = load.get(job_id, 0) + 1
    return picked


def _mark_sent(conn: Connection, job_id: str, position: int) -> bool:
    here = (chunks.c.job_id == job_id) & (chunks.c.position == position) & (chunks.c.state == ChunkState.PENDING)
    return bool(conn.execute(update(chunks).where(here).values(state=ChunkState.SENT, sent_at=time.time())).rowcount)
