"""When a device pool is gone: its jobs go to another pool that serves the same vector space, and to no other.

Where only another space is left, such as a quantised build of the same model, the job says so, and waits for a worker
or fails, as it was told to. When the pool is back, what is left of its jobs goes back.
"""

import time
from collections.abc import Sequence

from sqlalchemy import ColumnElement, and_, select, update

from semel.db import Database
from semel.errors import UnavailableError
from semel.log import get_log
from semel.tasks.jobs import ACTIVE, JobStore
from semel.tasks.pools import best_pool
from semel.tasks.roster import Roster, WorkerCard
from semel.tasks.schema import chunks, jobs
from semel.values import ItemError, UseCase, device_kind

log = get_log("failover")

GRACE_S = 6.0
"""An emptied Redis is filled again by the beats of all workers within this time."""


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
        self._gone_since: dict[tuple[str, bytes], float] = {}
        self._back_since: dict[tuple[str, bytes], float] = {}

    def run(self) -> None:
        """Move, or explain, what no live worker serves. Raises UnavailableError when Redis does not answer."""
        live, now = self._roster.live(), time.monotonic()
        since, back = dict[tuple[str, bytes], float](), dict[tuple[str, bytes], float]()
        for device, first, fingerprint, model in self._queues():
            serving = [card for card in live if card.serves(model, fingerprint)]
            kinds = {device_kind(card.device) for card in serving}
            ready = {device_kind(card.device) for card in serving if card.state == "ready"}
            if device not in kinds:
                since[device, fingerprint] = self._gone_since.get((device, fingerprint), now)
                gone_s = now - since[device, fingerprint]
                if gone_s >= GRACE_S:
                    self._replace(device, fingerprint, model, serving, live, fails=gone_s >= self._fail_after_s)
            elif first != device and first in ready:
                back[first, fingerprint] = self._back_since.get((first, fingerprint), now)
                if now - back[first, fingerprint] >= GRACE_S:  # one that dies again at once would take the job along
                    self._move(device, fingerprint, first, f"{first}: it serves this vector space again", first=first)
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
        self._move_to_best(kind, fingerprint, model, serving, f"{kind} cannot serve it: {why}")
        return True

    def _queues(self) -> list[tuple[str, str, bytes, str]]:
        """(device, device at first, fingerprint, model) of active jobs."""
        columns = (jobs.c.device, jobs.c.first_device, jobs.c.fingerprint, jobs.c.model)
        with self._db.read() as conn:
            found = conn.execute(select(*columns).where(jobs.c.status.in_(ACTIVE)).distinct()).all()
        return [(row.device, row.first_device or row.device, row.fingerprint, row.model) for row in found]

    def _replace(
        self,
        device: str,
        fingerprint: bytes,
        model: str,
        serving: Sequence[WorkerCard],
        live: Sequence[WorkerCard],
        *,
        fails: bool,
    ) -> None:
        if serving:
            self._move_to_best(device, fingerprint, model, serving, f"no live worker on {device} any more")
            return
        base = model.partition("@")[0]
        names = {
            f"{card.device} serves {name}" for card in live for name in card.models if name.partition("@")[0] == base
        }
        why = f"{device}: no live worker serves this vector space of {model}"
        if names:
            why += f"; {', '.join(sorted(names))}, which is another space and is not mixed with it"
        self._fail_or_wait(_of_queue(device, fingerprint), why, fails=fails)

    def _move_to_best(
        self, device: str, fingerprint: bytes, model: str, serving: Sequence[WorkerCard], reason: str
    ) -> None:
        kind, order = best_pool(serving, model=model, use_case=self._use_case)
        why = f"{kind}: {reason}; {kind} serves the same vector space ({order})"
        self._move(device, fingerprint, kind, why)

    def _move(self, device: str, fingerprint: bytes, to: str, why: str, *, first: str | None = None) -> None:
        which = _of_queue(device, fingerprint)
        if first is not None:
            which &= jobs.c.first_device == first
        with self._db.write(reserve=True) as conn:
            moved = conn.execute(update(jobs).where(which).values(device=to, why=why).returning(jobs.c.id))
            ids = list(moved.scalars())
            # Leases of chunks that were running end by themselves; what was only sent lies in the wrong queue.
            sent = and_(chunks.c.job_id.in_(ids), chunks.c.state == "sent")
            conn.execute(update(chunks).where(sent).values(state="pending"))
        if ids:
            log.warning("jobs moved to another device", jobs=len(ids), source=device, why=why)

    def _fail_or_wait(self, which: ColumnElement[bool], why: str, *, fails: bool) -> None:
        waits = f"{why}: it waits for one"
        with self._db.read() as conn:
            found = conn.execute(select(jobs.c.id, jobs.c.if_no_worker, jobs.c.why).where(which)).all()
        if fails:
            for row in found:
                if row.if_no_worker == "fail":
                    self._jobs.fail(row.id, ItemError(UnavailableError.code, f"{why}; the job was told to fail then"))
        if any(row.why != waits for row in found):
            with self._db.write(reserve=True) as conn:
                conn.execute(update(jobs).where(which).values(why=waits))


def _of_queue(device: str, fingerprint: bytes) -> ColumnElement[bool]:
    return and_(jobs.c.status.in_(ACTIVE), jobs.c.device == device, jobs.c.fingerprint == fingerprint)
