"""Whose turn it is: which chunks of a queue are sent next.

A queue has a window for each vector space, in full chunks of work under way. Owners (API keys) take turns, and the jobs
of an owner do so too: the next chunk is that of the owner with the least work under way for its share, and of the job
with the least work under way; between equals, the one whose last turn is longest ago goes first. So a job waits for the
chunks under way, and for one chunk of each other open job of its owner, while the other owners get their shares.
(To prefer the oldest job instead would starve the ninth: the eight before it always have a turn again.)
"""

import heapq
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, and_, bindparam, func, select, tuple_, update

from semel.tasks.jobs.rows import ChunkState
from semel.tasks.jobs.schema import IS_ACTIVE, chunks, jobs
from semel.values.text import Lane

_MOST_JOBS = 128
"""Jobs of one owner from which a call picks: turns are taken after every message, so the next call goes on."""

_QUEUE = and_(jobs.c.lane == bindparam("lane"), jobs.c.device == bindparam("device"), IS_ACTIVE)
_SPACE = and_(_QUEUE, jobs.c.fingerprint == bindparam("fingerprint"))
_OWNER = and_(_SPACE, jobs.c.owner == bindparam("owner"))

_FIRST_OWNERS = select(jobs.c.fingerprint, jobs.c.owner).order_by(jobs.c.fingerprint, jobs.c.owner).limit(1)
_FIRST_OWNER = _FIRST_OWNERS.where(_QUEUE)
_NEXT_OWNER = _FIRST_OWNERS.where(
    _QUEUE, tuple_(jobs.c.fingerprint, jobs.c.owner) > tuple_(bindparam("after_space"), bindparam("after_owner"))
)

_UNDER_WAY = (
    select(jobs.c.id, jobs.c.owner, func.sum(chunks.c.weight).label("weight"))
    .select_from(jobs.join(chunks, chunks.c.job_id == jobs.c.id))
    .where(_SPACE, chunks.c.state.in_((ChunkState.SENT, ChunkState.RUNNING)))
    .group_by(jobs.c.id, jobs.c.owner)
)

_ALL_UNDER_WAY = (
    select(func.sum(chunks.c.weight))
    .select_from(jobs.join(chunks, chunks.c.job_id == jobs.c.id))
    .where(_SPACE, chunks.c.state.in_((ChunkState.SENT, ChunkState.RUNNING)))
)

_SOME_WAITS = (
    select(chunks.c.job_id)
    .select_from(chunks.join(jobs, chunks.c.job_id == jobs.c.id))
    .where(_SPACE, chunks.c.state == ChunkState.PENDING)
    .limit(1)
)

_waiting = chunks.alias("waiting")
_NEXT_CHUNK = (
    select(func.min(_waiting.c.position))
    .where(_waiting.c.job_id == jobs.c.id, _waiting.c.state == ChunkState.PENDING)
    .correlate(jobs)
    .scalar_subquery()
)
_ELIGIBLE = (
    select(jobs.c.id, jobs.c.share, jobs.c.turn_at, jobs.c.chunks, chunks.c.position, chunks.c.weight)
    .select_from(jobs.join(chunks, and_(chunks.c.job_id == jobs.c.id, chunks.c.position == _NEXT_CHUNK)))
    .order_by(jobs.c.turn_at, jobs.c.id)
)
_OLDEST = _ELIGIBLE.where(_OWNER).limit(bindparam("most"))
_BEGUN = _ELIGIBLE.where(_OWNER, jobs.c.id.in_(bindparam("begun", expanding=True)))

_LAST_TURN = select(func.max(jobs.c.turn_at)).where(_OWNER)

_REST = (
    select(chunks.c.position, chunks.c.weight)
    .where(chunks.c.job_id == bindparam("id"), chunks.c.state == ChunkState.PENDING)
    .where(chunks.c.position > bindparam("after"))
    .order_by(chunks.c.position)
    .limit(bindparam("most"))
)


@dataclass(frozen=True, eq=False)
class Window:
    """How much may be under way on one queue.

    Attributes:
        size: full chunks of work that may be under way for each vector space.
        served: fingerprints that the live workers of this queue serve; chunks of other spaces wait. None if unknown:
            then any chunk may be sent.
    """

    lane: Lane
    device: str
    size: int
    served: Collection[bytes] | None = None


class Turn(NamedTuple):
    """A chunk whose turn it is.

    Attributes:
        weight: its work as a part of a full chunk.
        fingerprint: of its vector space.
    """

    job_id: str
    position: int
    weight: float
    fingerprint: bytes


@dataclass(order=True)
class _JobTurn:
    """A job that may have the next turn; the one that sorts first has it.

    Attributes:
        load: its work under way, in full chunks.
        turn_at: when it last had a turn, Unix seconds.
        next: its next chunk and that chunk's weight.
        rest: the chunks after it, as far as they were read.
        ends: the position after its last chunk.
    """

    load: float
    turn_at: float
    id: str
    next: tuple[int, float] = field(compare=False)
    ends: int = field(compare=False)
    rest: list[tuple[int, float]] = field(compare=False, default_factory=list)


@dataclass
class _OwnerTurn:
    """An owner whose jobs may have the next turn.

    Attributes:
        load: its work under way divided by its share.
        turn_at: when one of its jobs last had a turn, or was created since, Unix seconds.
        jobs: a heap.
    """

    load: float
    turn_at: float
    share: float
    jobs: list[_JobTurn]


def pick(conn: Connection, window: Window) -> list[Turn]:
    """The chunks to send next, in the order of their turns; changes nothing."""
    picked: list[Turn] = []
    for fingerprint, owners in _owners(conn, window).items():
        space = {"lane": window.lane.value, "device": window.device, "fingerprint": fingerprint}
        loads = {row.id: (row.owner, float(row.weight)) for row in conn.execute(_UNDER_WAY, space)}
        free = window.size - sum(weight for _, weight in loads.values())
        if free > 0:
            turns = [_owner_turn(conn, {**space, "owner": owner}, loads) for owner in owners]
            taken = _take_turns(conn, turns, free)
            picked += (Turn(job_id, position, weight, fingerprint) for job_id, position, weight in taken)
    return picked


def room(conn: Connection, window: Window, fingerprint: bytes) -> float:
    """Full chunks of work for which there is room at once; 0 if other chunks of this space wait for their turn."""
    space = {"lane": window.lane.value, "device": window.device, "fingerprint": fingerprint}
    if not (window.served is None or fingerprint in window.served) or conn.execute(_SOME_WAITS, space).first():
        return 0.0
    return window.size - float(conn.execute(_ALL_UNDER_WAY, space).scalar() or 0.0)


def mark_sent(conn: Connection, turns: Sequence[Turn], *, now: float) -> list[Turn]:
    """Mark those of these chunks as sent that still wait; returns them in the given order.

    Args:
        now: Unix seconds.
    """
    if not turns:
        return []
    columns = (chunks.c.job_id, chunks.c.position)
    these = tuple_(*columns).in_([turn[:2] for turn in turns]) & (chunks.c.state == ChunkState.PENDING)
    which: ColumnElement[bool] = these
    whose: ColumnElement[bool] = jobs.c.id.in_({turn.job_id for turn in turns})
    if conn.dialect.name == "postgresql":
        # Rows that another process is taking are left to it, and a locked job keeps its old turn: no deadlock, no wait.
        which = tuple_(*columns).in_(select(*columns).where(these).with_for_update(skip_locked=True))
        whose = jobs.c.id.in_(select(jobs.c.id).where(whose).with_for_update(skip_locked=True))
    sent = update(chunks).where(which).values(state=ChunkState.SENT, sent_at=now).returning(*columns)
    won = {(row.job_id, row.position) for row in conn.execute(sent)}
    if won:
        conn.execute(update(jobs).where(whose).values(turn_at=now))
    return [turn for turn in turns if turn[:2] in won]


def _owners(conn: Connection, window: Window) -> dict[bytes, list[str]]:
    """Fingerprint → owners with an open job in this queue, found by steps through the index."""
    found: dict[bytes, list[str]] = defaultdict(list)
    queue = {"lane": window.lane.value, "device": window.device}
    row = conn.execute(_FIRST_OWNER, queue).first()
    while row is not None:
        if window.served is None or row.fingerprint in window.served:
            found[row.fingerprint].append(row.owner)
        row = conn.execute(_NEXT_OWNER, {**queue, "after_space": row.fingerprint, "after_owner": row.owner}).first()
    return found


def _owner_turn(conn: Connection, owner: dict[str, Any], loads: dict[str, tuple[str, float]]) -> _OwnerTurn:
    own = {job_id: load for job_id, (name, load) in loads.items() if name == owner["owner"]}
    rows = list(conn.execute(_OLDEST, {**owner, "most": _MOST_JOBS + len(own)}))
    known = {row.id for row in rows}
    if begun := [job_id for job_id in own if job_id not in known]:
        rows += conn.execute(_BEGUN, {**owner, "begun": begun})
    turns = [
        _JobTurn(own.get(row.id, 0.0), row.turn_at, row.id, (row.position, float(row.weight)), row.chunks)
        for row in rows
    ]
    heapq.heapify(turns)
    share = max((float(row.share) for row in rows), default=1.0)
    last = conn.execute(_LAST_TURN, owner).scalar() or 0.0
    return _OwnerTurn(sum(own.values()) / share, last, share, turns)


def _take_turns(conn: Connection, owners: Sequence[_OwnerTurn], free: float) -> Iterator[tuple[str, int, float]]:
    """Pick chunks one by one until the window is full; the last one may exceed it."""
    while free > 0:
        waiting = [owner for owner in owners if owner.jobs]
        if not waiting:
            return
        owner = min(waiting, key=lambda each: (each.load, each.turn_at))
        job = heapq.heappop(owner.jobs)
        position, weight = job.next
        yield job.id, position, weight
        free -= weight
        job.load += weight
        owner.load += weight / owner.share
        if _advance(conn, job, free):
            heapq.heappush(owner.jobs, job)


def _advance(conn: Connection, job: _JobTurn, free: float) -> bool:
    """Move on to the job's next waiting chunk; returns whether there is one."""
    after = job.next[0]
    if not job.rest and after + 1 < job.ends and free > 0:
        rows = conn.execute(_REST, {"id": job.id, "after": after, "most": int(free) + 1})
        job.rest = [(row.position, float(row.weight)) for row in rows]
    if not job.rest:
        return False
    job.next = job.rest.pop(0)
    return True
