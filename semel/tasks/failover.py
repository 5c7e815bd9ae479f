"""When a device pool is gone: its jobs go to another pool that serves the same vector space, and to no other.

Where only another space is left, such as a quantised build of the same model, the job says so, and waits for a worker
or fails, as it was told to.
"""

import time
from collections.abc import Sequence

from sqlalchemy import ColumnElement, and_, select, update

from semel.backends.select import UseCase, best_of
from semel.db import Database
from semel.errors import UnavailableError
from semel.log import get_log
from semel.tasks.jobs import JobStore
from semel.tasks.roster import Roster, WorkerCard
from semel.tasks.schema import chunks, jobs
from semel.values import OPEN, ItemError, device_kind

log = get_log("failover")

GRACE_S = 6.0
"""An emptied Redis is filled again by the beats of all workers within this time."""

_OPEN = [status.value for status in OPEN]


class Failover:
    """Watches the queues of open jobs. Every worker runs one; a move twice is a move once.

    Args:
        use_case: in which order pools are preferred.
    """

    def __init__(self, db: Database, jobs: JobStore, roster: Roster, *, use_case: UseCase) -> None:
        self._db = db
        self._jobs = jobs
        self._roster = roster
        self._use_case = use_case
        self._gone_since: dict[tuple[str, bytes], float] = {}

    def run(self) -> None:
        """Move, or explain, what no live worker serves. Raises UnavailableError when Redis does not answer."""
        live = self._roster.live()
        orphaned = [
            (device, fingerprint, model)
            for device, fingerprint, model in self._open_queues()
            if not any(card.serves(fingerprint) and device_kind(card.device) == device for card in live)
        ]
        now = time.monotonic()
        self._gone_since = {
            (device, fingerprint): self._gone_since.get((device, fingerprint), now)
            for device, fingerprint, _ in orphaned
        }
        for device, fingerprint, model in orphaned:
            if now - self._gone_since[device, fingerprint] >= GRACE_S:
                self._replace(device, fingerprint, model, live)

    def leave(self, device: str, fingerprint: bytes, *, why: str) -> bool:
        """This pool cannot serve a space: move its jobs at once; False when nobody else can.

        Raises:
            UnavailableError: Redis does not answer.
        """
        kinds = _others(device, fingerprint, self._roster.live())
        if kinds:
            self._move(device, fingerprint, kinds, f"{device} cannot serve it: {why}")
        return bool(kinds)

    def _open_queues(self) -> list[tuple[str, bytes, str]]:
        query = select(jobs.c.device, jobs.c.fingerprint, jobs.c.model).where(jobs.c.status.in_(_OPEN)).distinct()
        with self._db.read() as conn:
            return [(row.device, row.fingerprint, row.model) for row in conn.execute(query)]

    def _replace(self, device: str, fingerprint: bytes, model: str, live: Sequence[WorkerCard]) -> None:
        kinds = _others(device, fingerprint, live)
        if kinds:
            self._move(device, fingerprint, kinds, f"no live worker on {device} any more")
            return
        base = model.partition("@")[0]
        other = sorted({f"{card.device} serves {name}" for card in live for name in card.models if _same(name, base)})
        why = f"{device}: no live worker serves this vector space of {model}"
        if other:
            why += f"; {', '.join(other)}, which is another space and is not mixed with it"
        self._fail_or_wait(device, fingerprint, why)

    def _move(self, device: str, fingerprint: bytes, kinds: list[str], reason: str) -> None:
        kind, order = best_of(kinds, use_case=self._use_case, measured={})
        why = f"{kind}: {reason}; {kind} serves the same vector space ({order})"
        of_queue = _of_queue(device, fingerprint)
        with self._db.write(reserve=True) as conn:
            moved = list(
                conn.execute(update(jobs).where(of_queue).values(device=kind, why=why).returning(jobs.c.id)).scalars()
            )
            # Leases of chunks that were running end by themselves; what was only sent lies in the wrong queue.
            sent = and_(chunks.c.job_id.in_(moved), chunks.c.state == "sent")
            conn.execute(update(chunks).where(sent).values(state="pending"))
        if moved:
            log.warning("jobs moved to another device", jobs=len(moved), source=device, to=kind, reason=reason)

    def _fail_or_wait(self, device: str, fingerprint: bytes, why: str) -> None:
        of_queue = _of_queue(device, fingerprint)
        with self._db.read() as conn:
            told = {row.id: (row.if_no_worker, row.why) for row in conn.execute(select(jobs).where(of_queue))}
        for job_id, (setting, _) in told.items():
            if setting == "fail":
                self._jobs.fail(job_id, ItemError(UnavailableError.code, f"{why}; the job was told to fail then"))
        if any(known != f"{why}: it waits for one" for setting, known in told.values() if setting == "wait"):
            with self._db.write(reserve=True) as conn:
                conn.execute(update(jobs).where(of_queue).values(why=f"{why}: it waits for one"))


def _of_queue(device: str, fingerprint: bytes) -> ColumnElement[bool]:
    return and_(jobs.c.status.in_(_OPEN), jobs.c.device == device, jobs.c.fingerprint == fingerprint)


def _others(device: str, fingerprint: bytes, live: Sequence[WorkerCard]) -> list[str]:
    serving = [card for card in live if card.serves(fingerprint) and device_kind(card.device) != device]
    real = [card for card in serving if not card.software] or serving
    return sorted({device_kind(card.device) for card in real})


def _same(name: str, base: str) -> bool:
    return name.partition("@")[0] == base
