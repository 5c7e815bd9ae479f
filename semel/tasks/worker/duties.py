"""Maintenance: the heartbeat of a worker, and the sweep that sends again what was lost.

It runs in every worker, so there is no extra process to forget. Sweeping twice does no harm: each change is
conditional on the row's state.
"""

import threading
import time
from collections.abc import Callable, Sequence

import redis

from semel.cache.catalog import Catalog
from semel.cache.claims import Claims
from semel.errors import SemelError
from semel.log import get_log
from semel.tasks.fleet.failover import Failover
from semel.tasks.fleet.roster import BEAT_S, Roster, WorkerCard
from semel.tasks.jobs.store import JobStore, Swept
from semel.tasks.queue.dispatch import Dispatcher
from semel.tasks.queue.names import queue_name
from semel.values import Lane, Space, device_kind

log = get_log("maintenance")

RESEND_AFTER_S = 5.0
"""A message that left an empty queue this long ago and runs nowhere is lost: workers start at once what they take."""

_TOUCH_S = 5.0


class Maintenance:
    """A thread that beats and sweeps.

    Args:
        worker_id, device: of this worker.
        card: says who this worker is, anew for each beat.
        in_hand: the chunks whose leases are to be renewed.
        watch_device: ends this process when the device hangs.
        spaces: what this worker serves.
    """

    def __init__(
        self,
        client: "redis.Redis",
        jobs: JobStore,
        dispatcher: Dispatcher,
        roster: Roster,
        catalog: Catalog,
        claims: Claims,
        failover: Failover,
        *,
        worker_id: str,
        device: str,
        card: Callable[[], WorkerCard],
        in_hand: Callable[[], list[tuple[str, int]]],
        watch_device: Callable[[], None],
        on_swept: Callable[[Swept], None],
        spaces: Callable[[], Sequence[Space]],
        lease_s: float,
        max_attempts: int,
    ) -> None:
        self._client = client
        self._jobs = jobs
        self._dispatcher = dispatcher
        self._roster = roster
        self._catalog = catalog
        self._claims = claims
        self._card = card
        self._in_hand = in_hand
        self._spaces = spaces
        self._lease_s = lease_s
        self._max_attempts = max_attempts
        self._worker_id = worker_id
        self._device = device_kind(device)
        self._touched = 0.0
        self._failover = failover
        self._watch_device = watch_device
        self._on_swept = on_swept
        self._failing: set[str] = set()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="maintenance", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        while not self._stopping.is_set():
            for duty in (
                self._watch_device,
                self._renew_leases,
                self._beat,
                self._claims.renew,
                self._touch,
                self._sweep,
                self._fail_over,
                self._top_up,
            ):
                self._attempt(duty)
            self._stopping.wait(BEAT_S)

    def _attempt(self, duty: Callable[[], None]) -> None:
        """One failing duty must not stop the others; said once, and once more when it works again."""
        name = duty.__name__.strip("_")
        try:
            duty()
        except (redis.RedisError, SemelError) as error:
            if name not in self._failing:
                log.warning("duty fails, trying again", duty=name, reason=str(error))
            self._failing.add(name)
        except Exception:  # the thread's edge: without it nobody beats, sweeps or watches the device
            if name not in self._failing:
                log.exception("duty fails, trying again", duty=name)
            self._failing.add(name)
        else:
            if name in self._failing:
                log.info("duty works again", duty=name)
            self._failing.discard(name)

    def _renew_leases(self) -> None:
        self._jobs.renew(self._in_hand(), owner=self._worker_id, ttl_s=self._lease_s)

    def _beat(self) -> None:
        self._roster.beat(self._card())

    def _touch(self) -> None:
        if time.monotonic() - self._touched > _TOUCH_S:
            self._catalog.touch(self._spaces())
            self._touched = time.monotonic()

    def _sweep(self) -> None:
        device = self._device
        empty = [(lane, device) for lane in Lane if self._client.llen(queue_name(lane, device)) == 0]
        swept = self._jobs.sweep(empty_queues=empty, resend_after_s=RESEND_AFTER_S, max_attempts=self._max_attempts)
        if swept != Swept():
            self._on_swept(swept)
            log.warning("swept", **{k: v for k, v in vars(swept).items() if v})

    def _fail_over(self) -> None:
        self._failover.run()

    def _top_up(self) -> None:
        for lane in Lane:
            self._dispatcher.top_up(lane, self._device)
