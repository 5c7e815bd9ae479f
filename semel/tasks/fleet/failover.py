"""Failover: the jobs of a lost device pool move to another pool that serves the same vector space, and to no other.

If only other spaces are served, such as a quantised build of the same model, the job waits for a worker or fails, as
its submitter chose. When the pool returns, its unfinished jobs move back.
"""

import time
from collections.abc import Sequence

from semel.errors import UnavailableError
from semel.log import get_log
from semel.tasks.fleet.card import WorkerCard
from semel.tasks.fleet.pools import best_pool, waits_for_worker
from semel.tasks.fleet.roster import Roster
from semel.tasks.jobs.moves import JobGroup, JobMoves
from semel.tasks.jobs.store import JobStore
from semel.values.device import UseCase, device_kind
from semel.values.model import base_name
from semel.values.text import ItemError

log = get_log("failover")

GRACE_S = 6.0
"""Within this time the heartbeats of all workers refill a Redis that was emptied."""


class Failover:
    """Watches the device pools of active jobs. Every worker and every API runs one; repeating a move changes nothing.

    Args:
        use_case: selects the order in which pools are preferred.
        fail_after_s: a job that must not wait fails when no worker has served it for this long.
    """

    def __init__(
        self, jobs: JobStore, moves: JobMoves, roster: Roster, *, use_case: UseCase, fail_after_s: float
    ) -> None:
        self._jobs = jobs
        self._moves = moves
        self._roster = roster
        self._use_case = use_case
        self._fail_after_s = fail_after_s
        self._gone_since: dict[JobGroup, float] = {}  # when its pool was first seen without a worker
        self._back_since: dict[tuple[str, JobGroup], float] = {}  # when its first pool was seen ready again

    def run(self) -> None:
        """Move the jobs whose pool has no live worker, or record why they wait.

        Raises:
            UnavailableError: Redis does not answer.
        """
        live, now = self._roster.live(), time.monotonic()
        gone_since, back_since = dict[JobGroup, float](), dict[tuple[str, JobGroup], float]()
        for group, first in self._moves.active():
            serving = [card for card in live if card.serves(group.model, group.fingerprint)]
            kinds = {device_kind(card.device) for card in serving}
            ready = {device_kind(card.device) for card in serving if card.state == "ready"}
            if group.device not in kinds:
                gone_since[group] = self._gone_since.get(group, now)
                gone_s = now - gone_since[group]
                if gone_s >= GRACE_S:
                    self._replace(group, serving, live, fails=gone_s >= self._fail_after_s)
            elif first != group.device and first in ready:
                back_since[first, group] = self._back_since.get((first, group), now)
                if now - back_since[first, group] >= GRACE_S:  # a pool that dies again takes its jobs along
                    self._move(group, first, f"{first}: it serves this vector space again", first=first)
        self._gone_since, self._back_since = gone_since, back_since

    def others(self, worker_id: str, model: str, fingerprint: bytes) -> list[WorkerCard]:
        """The live workers, except `worker_id`, that serve a space. Raises UnavailableError without Redis."""
        return [card for card in self._roster.live() if card.serves(model, fingerprint) and card.id != worker_id]

    def leave(self, device: str, worker_id: str, model: str, fingerprint: bytes, *, why: str) -> bool:
        """Hand over the jobs of a space that a worker cannot serve.

        Returns:
            Whether another worker serves the space; it gets the jobs from now on.

        Raises:
            UnavailableError: Redis does not answer.
        """
        kind = device_kind(device)
        serving = self.others(worker_id, model, fingerprint)
        if any(device_kind(card.device) == kind for card in serving):
            return True  # it consumes the same queue
        if not serving:
            return False
        self._move_to_best(JobGroup(kind, model, fingerprint), serving, f"{kind} cannot serve it: {why}")
        return True

    def _replace(
        self, group: JobGroup, serving: Sequence[WorkerCard], live: Sequence[WorkerCard], *, fails: bool
    ) -> None:
        if serving:
            self._move_to_best(group, serving, f"no live worker on {group.device} any more")
            return
        base = base_name(group.model)
        names = {f"{card.device} serves {name}" for card in live for name in card.models if base_name(name) == base}
        why = f"{group.device}: no live worker serves this vector space of {group.model}"
        if names:
            why += f"; {', '.join(sorted(names))}, which is another space and is not mixed with it"
        if fails:
            for job_id in self._moves.failing(group):
                error = ItemError(UnavailableError.code, f'{why}; the job was submitted with if_no_worker "fail"')
                self._jobs.fail(job_id, error)
        self._moves.wait(group, waits_for_worker(why))

    def _move_to_best(self, group: JobGroup, serving: Sequence[WorkerCard], reason: str) -> None:
        kind, order = best_pool(serving, model=group.model, use_case=self._use_case)
        self._move(group, kind, f"{kind}: {reason}; {kind} serves the same vector space ({order})")

    def _move(self, group: JobGroup, to: str, why: str, *, first: str | None = None) -> None:
        if moved := self._moves.move(group, to, why, first=first):
            log.warning("jobs moved to another device", jobs=moved, source=group.device, why=why)
