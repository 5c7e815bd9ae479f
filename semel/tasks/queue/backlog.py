"""How many seconds of work wait in a queue, and the refusal of more than a bound.

Requests that are all hits are answered whatever waits; a job is refused before anyone knows what it holds.
"""

from collections import defaultdict
from collections.abc import Mapping

import redis

from semel.errors import OverloadedError
from semel.kept import Kept
from semel.redis_client import unreachable
from semel.tasks.fleet.roster import Roster
from semel.tasks.jobs.counts import JobCounts
from semel.tasks.queue.names import queue_name
from semel.values.device import device_kind
from semel.values.text import Lane

_KEPT_S = 1.0
"""The estimate is this old at the most: one question to the database a second, however many requests come."""


class Backlog:
    """Seconds of work by queue: texts that wait, over the rate that the live workers measured.

    Args:
        max_s: lane → seconds of work that may wait when more comes.
    """

    def __init__(
        self, counts: JobCounts, roster: Roster, client: "redis.Redis", *, max_s: Mapping[Lane, float]
    ) -> None:
        self._counts = counts
        self._roster = roster
        self._client = client
        self._max_s = max_s
        self._seen: dict[tuple[Lane, str], Kept[float]] = defaultdict(lambda: Kept(_KEPT_S))

    def check(self, lane: Lane, device: str) -> None:
        """Raises OverloadedError, with the time after which the queue is back at its bound."""
        waiting_s, most_s = self.seconds(lane, device), self._max_s[lane]
        if waiting_s > most_s:
            raise OverloadedError(
                f"about {waiting_s:,.0f} s of work wait on {device} in the {lane} lane, {most_s:,.0f} s is the most; "
                "send it again later, or start more workers",
                retry_after_s=max(1.0, waiting_s - most_s),
            )

    def seconds(self, lane: Lane, device: str) -> float:
        """Seconds until a text that comes now would be computed; 0 while no rate is known.

        The bulk lane waits for the interactive one, too.
        """
        return self._seen[lane, device].get(lambda: self._measure(lane, device))

    def _measure(self, lane: Lane, device: str) -> float:
        rate = self.rate(device)
        if not rate:
            return 0.0
        lanes = [Lane.INTERACTIVE] if lane is Lane.INTERACTIVE else list(Lane)
        messages = self.messages(Lane.INTERACTIVE, device)  # one text each, at the least
        return (self._counts.waiting_texts(lanes=lanes, device=device) + messages) / rate

    def rate(self, device: str) -> float:
        """Texts a second of the live workers of this kind of device, as they measured; 0 while none did."""
        return sum(card.texts_per_s for card in self._roster.live_lately() if device_kind(card.device) == device)

    def messages(self, lane: Lane, device: str) -> int:
        """Those that wait in Redis. Raises UnavailableError."""
        try:
            return int(self._client.llen(queue_name(lane, device)))
        except redis.RedisError as error:
            raise unreachable(error) from error
