"""Chunks on their way through the workers: dispatched, leased, then finished or given back.

A chunk goes pending → sent → running → done; `semel.tasks.jobs.rows.ChunkState` explains the states.
"""

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, bindparam, case, exists, or_, select, tuple_, update

from semel.cache.keys import unpack_keys
from semel.clock import time_of
from semel.db import Database
from semel.tasks.jobs.ending import count_chunks, end_if_done
from semel.tasks.jobs.rows import (
    ACTIVE,
    ChunkState,
    ChunkWork,
    Finished,
    Place,
    outcomes_of,
    pack_errors,
    unpack_errors,
)
from semel.tasks.jobs.schema import chunks, jobs
from semel.tasks.jobs.turns import Turn, Window, mark_sent, pick
from semel.values.text import ItemError, Lane
from semel.values.variant import Variant

_FINISH = (
    update(chunks)
    .where(chunks.c.job_id == bindparam("of_job"), chunks.c.position == bindparam("at"))
    .values({name: bindparam(name) for name in ("state", "lease_owner", "outcomes", "errors_json", "payload")})
)


class ChunkStore:
    """Chunks by job id and position.

    Args:
        retention_s: how long a job that ends with one of its chunks is kept.
    """

    def __init__(self, db: Database, *, retention_s: float) -> None:
        self._db = db
        self._retention_s = retention_s

    def take_for_dispatch(self, window: Window) -> list[Turn]:
        """Mark chunks as sent until the window of the queue is full; owners and jobs take turns.

        Returns:
            The chunks to send after this transaction has committed.
        """
        with self._db.read() as conn:
            picked = pick(conn, window)
        if not picked:
            return []
        with self._db.write(reserve=True) as conn:
            return mark_sent(conn, picked, now=time_of(conn))

    def traceparents(self, job_ids: Collection[str]) -> dict[str, str | None]:
        """The `traceparent` of the request that created each job, None if it was not traced."""
        with self._db.read() as conn:
            rows = conn.execute(select(jobs.c.id, jobs.c.traceparent).where(jobs.c.id.in_(job_ids)))
            return {row.id: row.traceparent for row in rows}

    def lease(self, places: Sequence[Place], *, owner: str, ttl_s: float) -> list[ChunkWork]:
        """Lease chunks to a worker, all in one transaction.

        Returns:
            Those that are neither done, leased to another worker, cancelled nor gone, in the given order.
        """
        waiting = chunks.c.state.in_((ChunkState.PENDING, ChunkState.SENT))
        these = tuple_(chunks.c.job_id, chunks.c.position).in_(places)
        taken: dict[str, Any] = {
            "state": ChunkState.RUNNING,
            "lease_owner": owner,
            "attempts": chunks.c.attempts + 1,
            "tries": case((chunks.c.attempts == 0, 1), else_=chunks.c.tries),
        }
        with self._db.write(reserve=True) as conn:
            now = time_of(conn)
            abandoned = (chunks.c.state == ChunkState.RUNNING) & (chunks.c.lease_until < now)
            taken["lease_until"] = now + ttl_s
            active = exists().where(jobs.c.id == chunks.c.job_id, jobs.c.status.in_(ACTIVE))
            leased = update(chunks).where(these, or_(waiting, abandoned), active).values(taken).returning(chunks)
            rows = {(row.job_id, row.position): row for row in conn.execute(leased)}
            ids = {job_id for job_id, _ in rows}
            found = {row.id: row for row in conn.execute(select(jobs).where(jobs.c.id.in_(ids)))} if ids else {}
            for waited in (job for job in found.values() if job.waits):
                served = {"waits": False, "why": f"{waited.device}: the job waited for a worker"}
                conn.execute(update(jobs).where(jobs.c.id == waited.id).values(served))
        return [_work(rows[place], found[place[0]], owner) for place in dict.fromkeys(places) if place in rows]

    def renew(self, in_hand: Sequence[Place], *, owner: str, ttl_s: float) -> set[Place]:
        """Extend the leases of the chunks that a worker is working on; returns those that it still has."""
        if not in_hand:
            return set()
        with self._db.write(reserve=True) as conn:
            renewed = update(chunks).where(_held_by_owner(in_hand, owner)).values(lease_until=time_of(conn) + ttl_s)
            rows = conn.execute(renewed.returning(chunks.c.job_id, chunks.c.position))
            return {(row.job_id, row.position) for row in rows}

    def start_again(self, work: ChunkWork) -> None:
        """Record that a worker begins a chunk that was leased before: the end of the worker would count against it."""
        with self._db.write(reserve=True) as conn:
            conn.execute(update(chunks).where(_held_by(work)).values(tries=work.tries))

    def start_alone(self, work: ChunkWork, texts: range) -> int:
        """Record that some texts of a chunk that may kill workers are about to be computed, and no others.

        Args:
            texts: their positions in the chunk, and those between them.

        Returns:
            How often that was begun, this time included: each earlier time ended with the worker.
        """
        same = (chunks.c.suspect == texts.start) & (chunks.c.suspect_end == texts.stop)
        noted = {
            "suspect": texts.start,
            "suspect_end": texts.stop,
            "suspect_starts": case((same, chunks.c.suspect_starts + 1), else_=1),
        }
        with self._db.write(reserve=True) as conn:
            started = update(chunks).where(_held_by(work)).values(noted)
            return conn.execute(started.returning(chunks.c.suspect_starts)).scalar() or 1

    def blame(self, work: ChunkWork, places: Sequence[int], error: ItemError) -> None:
        """Record that a text killed its workers, so that it is never computed again.

        Args:
            places: its positions in the chunk.
        """
        with self._db.write(reserve=True) as conn:
            here = _held_by(work)
            before = conn.execute(select(chunks.c.errors_json).where(here).with_for_update()).scalar()
            if before is not None:
                errors = pack_errors({**unpack_errors(before), **dict.fromkeys(places, error)})
                conn.execute(update(chunks).where(here).values(errors_json=errors, suspect=None, suspect_starts=0))

    def finish(self, finished: Sequence[Finished], window: Window | None = None) -> tuple[list[bool], list[Turn]]:
        """Record the outcomes of chunks of one worker, and whose turn it is next, all in one transaction.

        Args:
            window: of the queue that has room again; None sends nothing.

        Returns:
            For each chunk whether it was recorded: False if its lease has passed to another worker, or it has ended.
            Then the chunks to send after this transaction has committed.
        """
        with self._db.write(reserve=True) as conn:
            held = _still_held(conn, [each.work for each in finished])
            ours = [each for each in finished if _lease_of(each.work) in held]
            if ours:
                conn.execute(_FINISH, [each.row() for each in ours])
                count_chunks(conn, ours, retention_s=self._retention_s)
            if stopped := sorted({lease[0] for lease, active in held.items() if not active}):
                end_if_done(conn, stopped, retention_s=self._retention_s)
            turn = [] if window is None else mark_sent(conn, pick(conn, window), now=time_of(conn))
        return [_lease_of(each.work) in held for each in finished], turn

    def give_back(self, works: Sequence[ChunkWork], *, suspect: bool = False) -> None:
        """Return unfinished chunks: each is pending again, or cancelled if its job is no longer active.

        Args:
            suspect: the device was lost, perhaps through the text that was being computed alone.
        """
        released: dict[str, Any] = {"lease_owner": None}
        if not suspect:
            released |= {"suspect": None, "suspect_starts": 0}
        with self._db.write(reserve=True) as conn:
            held = or_(*(_held_by(work) for work in works))
            active = exists().where(jobs.c.id == chunks.c.job_id, jobs.c.status.in_(ACTIVE))
            conn.execute(update(chunks).where(held, active).values(state=ChunkState.PENDING, **released))
            conn.execute(update(chunks).where(held).values(state=ChunkState.CANCELLED, **released))
            end_if_done(conn, sorted({work.job_id for work in works}), retention_s=self._retention_s)

    def give_back_uncharged(self, places: Sequence[Place], *, owner: str) -> None:
        """Return the chunks of a worker that ends through no fault of theirs, without counting the attempt."""
        if not places:
            return
        active = exists().where(jobs.c.id == chunks.c.job_id, jobs.c.status.in_(ACTIVE))
        with self._db.write(reserve=True) as conn:
            released = {
                "state": ChunkState.PENDING,
                "lease_owner": None,
                "attempts": chunks.c.attempts - 1,
                "tries": case((chunks.c.tries > 0, chunks.c.tries - 1), else_=0),
                "suspect": None,
                "suspect_starts": 0,
            }
            conn.execute(update(chunks).where(_held_by_owner(places, owner), active).values(released))


def _work(row: Any, job: Any, owner: str) -> ChunkWork:
    return ChunkWork(
        job_id=row.job_id,
        position=row.position,
        owner=owner,
        attempts=row.attempts,
        tries=row.tries + (row.attempts > 1),
        first_index=row.first_index,
        keys=unpack_keys(row.packed_keys),
        errors=unpack_errors(row.errors_json),
        payload=row.payload,
        model=job.model,
        prompt_name=job.prompt_name,
        fingerprint=job.fingerprint,
        variant=Variant.from_json(job.variant),
        lane=Lane(job.lane),
        truncate=job.truncate,
        sent_at=row.sent_at,
        before=outcomes_of(row),
        suspects=range(0) if row.suspect is None else range(row.suspect, row.suspect_end),
    )


def _held_by(work: ChunkWork) -> ColumnElement[bool]:
    """Exactly this lease: after it has expired, the same worker may hold the chunk under a new one."""
    return _held_by_owner([work.place], work.owner) & (chunks.c.attempts == work.attempts)


def _held_by_owner(places: Sequence[Place], owner: str) -> ColumnElement[bool]:
    these = tuple_(chunks.c.job_id, chunks.c.position).in_(places)
    return and_(these, chunks.c.state == ChunkState.RUNNING, chunks.c.lease_owner == owner)


def _lease_of(work: ChunkWork) -> tuple[str, int, int]:
    return *work.place, work.attempts


def _still_held(conn: Connection, works: Sequence[ChunkWork]) -> dict[tuple[str, int, int], bool]:
    """The leases of one worker among these that have not passed to another one, and whether their jobs are active.

    The rows of the chunks are locked.
    """
    held = _held_by_owner([work.place for work in works], works[0].owner)
    query = (
        select(chunks.c.job_id, chunks.c.position, chunks.c.attempts, jobs.c.status)
        .select_from(chunks.join(jobs, chunks.c.job_id == jobs.c.id))
        .where(held)
        .order_by(chunks.c.job_id, chunks.c.position)
        .with_for_update(of=chunks)
    )
    return {(row.job_id, row.position, row.attempts): row.status in ACTIVE for row in conn.execute(query)}
