"""The estimate of the work that waits for a device, and the refusal of more work above a bound.

A request whose texts are all hits is answered whatever waits; a job is refused before its texts are looked up.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

import redis

from semel.errors import OverloadedError
from semel.kept import Kept
from semel.redis_client import unreachable
from semel.tasks.fleet.card import ModelRate
from semel.tasks.fleet.roster import Roster
from semel.tasks.jobs.counts import JobCounts, WaitingWork
from semel.tasks.queue.names import queue_name
from semel.values.device import device_kind
from semel.values.text import Lane

_KEPT_S = 1.0
"""Maximum age of the texts of jobs in the estimate: one database query per second, however many requests arrive.
Requests are counted at once."""


class WaitingRequests(Protocol):
    """The requests that wait for their answers."""

    def texts(self, device: str) -> int:
        """The number of their texts on a kind of device."""

    def devices(self) -> Collection[str]:
        """The kinds of device with such a text."""


class Backlog:
    """Seconds of work by queue: the tokens of the texts that wait, at the measured rates of the live workers.

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
        self._waiting: Kept[list[WaitingWork]] = Kept(_KEPT_S)

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
        """Seconds until a text that arrives now would be computed; texts whose rate is not known take none.

        The bulk lane also waits for the interactive lane. Raises UnavailableError when Redis does not answer.
        """
        known_s, unknown = self._work(lane, device)
        rate = self.rate(device)
        return known_s + (unknown / rate if rate else 0.0)

    def known_seconds(self, lane: Lane, device: str, *, waiting: Sequence[WaitingWork]) -> float | None:
        """As `seconds`, but None while texts wait whose rate is not known.

        Args:
            waiting: the texts of jobs, just counted.
        """
        known_s, unknown = self._work(lane, device, waiting)
        rate = self.rate(device)
        if unknown and not rate:
            return None
        return known_s + (unknown / rate if unknown else 0.0)

    def _work(self, lane: Lane, device: str, waiting: Sequence[WaitingWork] | None = None) -> tuple[float, int]:
        """Seconds of work at the rates of its models, and the number of texts whose rate is not known.

        The texts of a job have the tokens of its earlier texts. Those of requests are among the second ones.
        """
        lanes = [Lane.INTERACTIVE] if lane is Lane.INTERACTIVE else list(Lane)
        cards = [card for card in self._roster.recently_live() if device_kind(card.device) == device]
        known_s, unknown = 0.0, self.requests(device)
        for work in self._waiting.get(self._counts.waiting_work) if waiting is None else waiting:
            if work.device != device or work.lane not in lanes:
                continue
            seconds = _seconds_of(work, [card.rates[work.model] for card in cards if work.model in card.rates])
            known_s += seconds or 0.0
            unknown += work.texts if seconds is None else 0
        return known_s, unknown

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


def _seconds_of(work: WaitingWork, rates: Sequence[ModelRate]) -> float | None:
    """Seconds that workers with these rates need together; None if there is none."""
    if not sum(rate.tokens_per_s for rate in rates):
        return None
    per_text = work.tokens_per_text or sum(rate.tokens_per_text for rate in rates) / len(rates)
    return work.texts * per_text / sum(rate.tokens_per_s for rate in rates)
