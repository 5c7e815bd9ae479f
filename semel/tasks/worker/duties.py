"""The duties of every worker besides computing. Each one runs in a thread of its own, so none waits for another.

Every worker does them, so there is no extra process that could be forgotten.
"""

from collections.abc import Callable

import redis

from semel.log import get_log
from semel.tasks.jobs.sweep import Sweeper, Swept
from semel.tasks.queue.dispatch import Dispatcher
from semel.tasks.queue.names import queue_name
from semel.values.device import device_kind
from semel.values.text import Lane

log = get_log("duties")

RESEND_AFTER_S = 5.0
"""A message that left an empty queue this long ago and runs nowhere is lost: workers start at once what they take."""

TOUCH_S = 5.0
"""How often a worker repeats the publication of its models; see `semel.cache.catalog.LIVE_S`."""


class QueueCare:
    """Keeps the queues of one kind of device in order: sends again what was lost, and tops them up.

    Args:
        device: of this worker.
        on_swept: called with what a sweep changed.
    """

    def __init__(
        self,
        client: "redis.Redis",
        sweeper: Sweeper,
        dispatcher: Dispatcher,
        *,
        device: str,
        on_swept: Callable[[Swept], None],
    ) -> None:
        self._client = client
        self._sweeper = sweeper
        self._dispatcher = dispatcher
        self._device = device_kind(device)
        self._on_swept = on_swept

    def once(self) -> None:
        """Sweep, then fill both lanes. Raises redis.RedisError, UnavailableError."""
        empty = [(lane, self._device) for lane in Lane if self._client.llen(queue_name(lane, self._device)) == 0]
        swept = self._sweeper.sweep(empty_queues=empty, resend_after_s=RESEND_AFTER_S)
        if swept != Swept():
            self._on_swept(swept)
            log.warning("swept", **{name: count for name, count in vars(swept).items() if count})
        self.top_up()

    def top_up(self) -> None:
        """Send the next chunks of both lanes."""
        for lane in Lane:
            self._dispatcher.top_up(lane, self._device)
