"""The estimate of the work that waits for a device, and the refusal of more work above a bound.

A request whose texts are all hits is answered whatever waits; a job is refused before its texts are looked up.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping
from typing import Protocol

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
"""Maximum age of the texts of jobs in the estimate: one database query per second and queue, however many requests
arrive. Requests are counted at once."""


class WaitingRequests(Protocol):
    """The requests that wait for their answers."""

    def texts(self, device: str) -> int:
        """The number of their texts on a kind of device."""

    def devices(self) -> Collection[str]:
        """The kinds of device with such a text."""


class Backlog:
    """Seconds of work by queue: the texts that wait, divided by the measured rate of the live workers.

    Args:
        requests: knows the requests that wait, whether they are in a sender, in Redis or in a worker.
        max_s: lane → seconds of work that may already wait when more arrives.
    """

    def __init__(
        self,
        counts: JobCounts,
        roster: Roster,
        client: "redis.Redis",
        *,
        requests: WaitingRequests,
        max_s: Mapping[Lane, float],
    ) -> None:
        self._counts = counts
        self._roster = roster
        self._client = client
        self._requests = requests
        self._max_s = max_s
        self._seen: dict[tuple[Lane, str], Kept[int]] = defaultdict(lambda: Kept(_KEPT_S))

    def check(self, lane: Lane, device: str) -> None:
        """Refuse more work for a queue that is above its bound.

        Raises:
            OverloadedError: its `retry_after_s` is the time after which the queue is back at its bound.
            UnavailableError: Redis does not answer.
        """
        waiting_s, most_s = self.seconds(lane, device), self._max_s[lane]
        if waiting_s > most_s:
            raise OverloadedError(
                f"about {waiting_s:,.0f} s of work wait on {device} in the {lane} lane (at most {most_s:,.0f} s may); "
                "try again later, or start more workers",
                retry_after_s=max(1.0, waiting_s - most_s),
            )

    def seconds(self, lane: Lane, device: str) -> float:
        """Seconds until a text that arrives now would be computed; 0 while no rate is known.

        The bulk lane also waits for the interactive lane. Raises UnavailableError when Redis does not answer.
        """
        rate = self.rate(device)
        if not rate:
            return 0.0
        lanes = [Lane.INTERACTIVE] if lane is Lane.INTERACTIVE else list(Lane)
        jobs = self._seen[lane, device].get(lambda: self._counts.waiting_texts(lanes=lanes, device=device))
        return (jobs + self.requests(device)) / rate

    def rate(self, device: str) -> float:
        """Texts per second of all live workers on this kind of device; 0 while none has measured it.

        Raises:
            UnavailableError: Redis does not answer.
        """
        return sum(card.texts_per_s for card in self._roster.recently_live() if device_kind(card.device) == device)

    def devices(self) -> Collection[str]:
        """The kinds of device for which texts of requests wait."""
        return self._requests.devices()

    def requests(self, device: str) -> int:
        """Texts of requests that wait for their answer on a kind of device."""
        return self._requests.texts(device)

    def messages(self, lane: Lane, device: str) -> int:
        """The number of messages in this queue. Raises UnavailableError when Redis does not answer."""
        try:
            return int(self._client.llen(queue_name(lane, device)))
        except redis.RedisError as error:
            raise unreachable(error) from error
