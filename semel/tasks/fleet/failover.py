"""When a device pool is gone: its jobs go to another pool that serves the same vector space, and to no other.

Where only another space is left, such as a quantised build of the same model, the job says so, and waits for a worker
or fails, as it was told to. When the pool is back, what is left of its jobs goes back.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, and_, select, update

from semel.db import Database
from semel.errors import UnavailableError
from semel.log import get_log
from semel.tasks.fleet.pools import best_pool
from semel.tasks.fleet.roster import Roster, WorkerCard
from semel.tasks.jobs.schema import chunks, jobs
from semel.tasks.jobs.store import ACTIVE, WAITS, JobStore
from semel.values import ItemError, UseCase, device_kind

log = get_log("failover")

GRACE_S = 6.0
"""An emptied Redis is filled again by the beats of all workers within this time."""


@dataclass(frozen=True)
class _Kin:
    """The active jobs of one model and vector space on one kind of device: they stay or go together."""

    device: str
    model: str
    fingerprint: bytes

    @property
    def rows(self) -> ColumnElement[bool]:
        return and_(
            jobs.c.status.in_(ACTIVE),
            jobs.c.device == self.device,
            jobs.c.model == self.model,
            jobs.c.fingerprint == self.fingerprint,
        )


class Failover:
    """Watches the queues of active jobs. Every worker and every API runs one; a move twice is a move once.

    Args:
        use_case: in which order pools are preferred.
        fail_after_s: without a worker for this long, a job that is not to wait fails.
    """

    def __init__(self, db: Database, jobs: JobStore, roster: Roster, *, use_case: UseCase, fail_after_s: float) -> None:
        self._db = db
        self._jobs = jobs
        self._roster = roster
        self._use_case = use_case
        self._fail_after_s = fail_after_s
        self._gone_since: dict[_Kin, float] = {}
        self._back_since: dict[tuple[str, _Kin], float] = {}

    def run(self) -> None:
        """Move, or explain, what no live worker serves. Raises UnavailableError when Redis does not answer."""
        live, now = self._roster.live(), time.monotonic()
        since, back = dict[_Kin, float](), dict[tuple[str, _Kin], float]()
        for kin, first in self._active():
            serving = [card for card in live if card.serves(kin.model, kin.fingerprint)]
            kinds = {device_kind(card.device) for card in serving}
            ready = {device_kind(card.device) for card in serving if card.state == "ready"}
            if kin.device not in kinds:
                since[kin] = self._gone_since.get(kin, now)
                gone_s = now - since[kin]
                if gone_s >= GRACE_S:
                    self._replace(kin, serving, live, fails=gone_s >= self._fail_after_s)
            elif first != kin.device and first in ready:
                back[first, kin] = self._back_since.get((first, kin), now)
                if now - back[first, kin] >= GRACE_S:  # one that dies again at once would take the job along
                    self._move(kin, first, f"{first}: it serves this vector space again", first=first)
        self._gone_since, self._back_since = since, back

    def others(self, worker_id: str, model: str, fingerprint: bytes) -> list[WorkerCard]:
        """Who else serves a space. Raises UnavailableError when Redis does not answer."""
        return [card for card in self._roster.live() if card.serves(model, fingerprint) and card.id != worker_id]

    def leave(self, device: str, worker_id: str, model: str, fingerprint: bytes, *, why: str) -> bool:
        """A worker cannot serve a space: whether another one does, which has its jobs now.

        Raises:
            UnavailableError: Redis does not answer.
        """
        kind = device_kind(device)
        serving = self.others(worker_id, model, fingerprint)
        if any(device_kind(card.device) == kind for card in serving):
            return True  # in the same queue
        if not serving:
            return False
        self._move_to_best(_Kin(kind, model, fingerprint), serving, f"{kind} cannot serve it: {why}")
        return True

    def _active(self) -> list[tuple[_Kin, str]]:
        """Jobs that are active, and the device that they were on at first."""
        columns = (jobs.c.device, jobs.c.first_device, jobs.c.fingerprint, jobs.c.model)
        with self._db.read() as conn:
            found = conn.execute(select(*columns).where(jobs.c.status.in_(ACTIVE)).distinct()).all()
        return [(_Kin(row.device, row.model, row.fingerprint), row.first_device or row.device) for row in found]

    def _replace(self, kin: _Kin, serving: Sequence[WorkerCard], live: Sequence[WorkerCard], *, fails: bool) -> None:
        if serving:
            self._move_to_best(kin, serving, f"no live worker on {kin.device} any more")
            return
        base = kin.model.partition("@")[0]
        names = {
            f"{card.device} serves {name}" for card in live for name in card.models if name.partition("@")[0] == base
        }
        why = f"{kin.device}: no live worker serves this vector space of {kin.model}"
        if names:
            why += f"; {', '.join(sorted(names))}, which is another space and is not mixed with it"
        self._fail_or_wait(kin.rows, why, fails=fails)

    def _move_to_best(self, kin: _Kin, serving: Sequence[WorkerCard], reason: str) -> None:
        kind, order = best_pool(serving, model=kin.model, use_case=self._use_case)
        why = f"{kind}: {reason}; {kind} serves the same vector space ({order})"
        self._move(kin, kind, why)

    def _move(self, kin: _Kin, to: str, why: str, *, first: str | None = None) -> None:
        which = kin.rows
        if first is not None:
            which &= jobs.c.first_device == first
        with self._db.write(reserve=True) as conn:
            moved = conn.execute(update(jobs).where(which).values(device=to, why=why).returning(jobs.c.id))
            ids = list(moved.scalars())
            # Leases of chunks that were running end by themselves; what was only sent lies in the wrong queue.
            sent = and_(chunks.c.job_id.in_(ids), chunks.c.state == "sent")
            conn.execute(update(chunks).where(sent).values(state="pending"))
        if ids:
            log.warning("jobs moved to another device", jobs=len(ids), source=kin.device, why=why)

    def _fail_or_wait(self, which: ColumnElement[bool], why: str, *, fails: bool) -> None:
        waits = f"{why}: {WAITS}"
        with self._db.read() as conn:
            found = conn.execute(select(jobs.c.id, jobs.c.if_no_worker, jobs.c.why).where(which)).all()
        if fails:
            for row in found:
                if row.if_no_worker == "fail":
                    self._jobs.fail(row.id, ItemError(UnavailableError.code, f"{why}; the job was told to fail then"))
        if any(row.why != waits for row in found):
            with self._db.write(reserve=True) as conn:
                conn.execute(update(jobs).where(which).values(why=waits))
