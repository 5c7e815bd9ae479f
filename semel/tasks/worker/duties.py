"""The care for the queues, which is one of the duties of every worker in addition to computing.

Every worker has these duties, so there is no extra process that an operator could forget to start.
"""

from collections.abc import Callable

import redis

from semel.cache.claims import RedisClaims
from semel.log import get_log
from semel.tasks.fleet.roster import Roster
from semel.tasks.jobs.sweep import Sweeper, Swept
from semel.tasks.queue.dispatch import Dispatcher
from semel.tasks.queue.names import queue_name
from semel.values.device import device_kind
from semel.values.text import Lane

log = get_log("duties")

RESEND_AFTER_S = 5.0
"""A chunk that was sent this long ago, whose queue is empty and that no worker runs, is lost: workers start at once."""

TOUCH_S = 5.0
"""How often a worker publishes its models again; see `semel.cache.catalog.LIVE_S`."""


class QueueCare:
    """Looks after the queues of one kind of device: sends lost chunks again, and fills the queues.

    Args:
        device: the device of this worker.
        on_swept: called with the changes of each sweep that changed something.
    """

    def __init__(
        self,
        client: "redis.Redis",
        sweeper: Sweeper,
        dispatcher: Dispatcher,
        roster: Roster,
        claims: RedisClaims,
        *,
        device: str,
        on_swept: Callable[[Swept], None],
    ) -> None:
        self._client = client
        self._sweeper = sweeper
        self._dispatcher = dispatcher
        self._roster = roster
        self._claims = claims
        self._device = device_kind(device)
        self._on_swept = on_swept

    def once(self) -> None:
        """Sweep, then fill both lanes. Raises redis.RedisError, UnavailableError."""
        empty = [(lane, self._device) for lane in Lane if self._client.llen(queue_name(lane, self._device)) == 0]
        gone = self._roster.vanished(self._sweeper.owners())
        self._claims.bury(gone)
        swept = self._sweeper.sweep(empty_queues=empty, resend_after_s=RESEND_AFTER_S, gone=gone)
        if swept != Swept():
            self._on_swept(swept)
            log.warning("lost or overdue work found", **{name: count for name, count in vars(swept).items() if count})
        for lane in Lane:
            self._dispatcher.top_up(lane, self._device)

    def top_up(self) -> None:
        """Send the next chunks of jobs."""
        self._dispatcher.top_up(Lane.BULK, self._device)
