"""The care for requests without an answer: those that were lost, whose worker died, or that ran out of time."""

import json
import time
from collections import Counter
from collections.abc import Sequence
from typing import TypeVar

import redis

from semel.errors import DeviceLostError, SemelError, TimedOutError
from semel.redis_client import RedisClock
from semel.tasks.fleet.roster import Roster
from semel.tasks.queue.doorbell import release, states
from semel.tasks.queue.names import queue_name
from semel.tasks.queue.outbox import Outbox
from semel.tasks.queue.pending import Pending
from semel.tasks.queue.router import Router
from semel.values.text import Lane

T = TypeVar("T")

LOOK_S = 1.0
"""How often to call `RequestCare.once`."""

_LOST_S = 5.0
"""A message that no worker has taken for this long is lost if its queue is empty, or if later messages were taken."""

_STALE_S = 30.0
"""A message that no worker has taken for this long is sent again in any case: workers drop copies."""

_DEAD_S = 3.0
"""A worker that is missing from the roster for this long is dead: heartbeats refill an emptied roster sooner."""

_NO_WORKER_S = 10.0
"""A request fails when no live worker has served its vector space for this long: a worker restarts within seconds."""

_MOST_DEATHS = 2
"""A request is not sent again when this many workers have died while they worked on it."""

_WAITING = "semel:waiting"
"""A hash: name of a sender → the texts that wait for its answers, by kind of device, and when it wrote that."""

_FORGET_S = 5.0
"""A sender that has not written for this long is gone."""

_SLICE = 500


class RequestCare:
    """Looks after the requests of this process, and knows how much waits in others.

    Args:
        timeout_s: how long a request may wait, for the message of its error.
    """

    def __init__(
        self, outbox: Outbox, client: "redis.Redis", roster: Roster, router: Router, *, timeout_s: float
    ) -> None:
        self._outbox = outbox
        self._client = client
        self._roster = roster
        self._router = router
        self._timeout_s = timeout_s
        self._clock = RedisClock(client)
        self._elsewhere: Counter[str] = Counter()
        self._missing_since: dict[str, float] = {}  # worker → when it was first seen to be missing
        self._unserved_since: dict[bytes, float] = {}  # fingerprint → when it was first seen to have no worker

    def texts(self, device: str) -> int:
        """Texts of requests that wait for their answer on a kind of device: here, and in other processes a second ago.

        They count until they are answered, whether they are here, in Redis or in a worker.
        """
        return self._outbox.texts(device) + self._elsewhere[device]

    def devices(self) -> set[str]:
        """The kinds of device with a text that waits."""
        return {*self._outbox.waiting(), *(device for device, count in self._elsewhere.items() if count)}

    def once(self) -> None:
        """End what is late, and send again what is lost. Raises redis.RedisError, UnavailableError."""
        now = time.monotonic()
        late = [pending for pending in self._outbox.pending() if pending.deadline <= now]
        if late:
            message = f"no worker answered within {self._timeout_s:g} s; try again, what was computed is cached"
            self._outbox.fail(late, TimedOutError(message))
        release(self._client, self._outbox.take_settled())
        self._exchange_counts()
        sent = [
            pending
            for pending in self._outbox.pending()
            if pending.message is not None and pending.message.device and now - pending.message.sent_at >= LOOK_S
        ]
        for at in range(0, len(sent), _SLICE):
            self._look_after(sent[at : at + _SLICE])

    def _look_after(self, sent: Sequence[Pending]) -> None:
        died, lost = list[Pending](), list[Pending]()
        found = states(self._client, [p.request.id for p in sent])
        live = {card.id for card in self._roster.live()}
        self._missing_since = {worker: at for worker, at in self._missing_since.items() if worker not in live}
        for pending, state in zip(sent, found, strict=True):
            if state.answer is not None:  # its notification was lost
                self._outbox.answered(pending.request.id, state.answer)
            elif state.worker is None:
                if self._is_lost(pending):
                    lost.append(pending)
            else:
                self._outbox.taken(pending, deaths=state.deaths)
                if state.worker not in live and _since(self._missing_since, state.worker) >= _DEAD_S:
                    died.append(pending)
        self._send_again(died, lost)

    def _send_again(self, died: Sequence[Pending], lost: Sequence[Pending]) -> None:
        release(self._client, [pending.request.id for pending in died])
        given_up = [pending for pending in died if pending.request.deaths + 1 >= _MOST_DEATHS]
        error = DeviceLostError(f"{_MOST_DEATHS} workers died while they worked on this request")
        self._outbox.fail(given_up, error)
        self._outbox.send_again([pending for pending in died if pending not in given_up], after_death=True)
        self._outbox.send_again(lost, after_death=False)

    def _is_lost(self, pending: Pending) -> bool:
        """Whether a request that no worker has taken must be sent again, perhaps to another queue."""
        message = pending.message
        if message is None:
            return False
        waited_s = time.monotonic() - message.sent_at
        try:
            if self._router.route(pending.group.space, must_live=True).device != message.device:
                return True  # the pool is gone
        except SemelError:  # sending it again then fails with the reason
            return _since(self._unserved_since, pending.group.space.fingerprint) >= _NO_WORKER_S
        self._unserved_since.pop(pending.group.space.fingerprint, None)
        if not _LOST_S <= waited_s < _STALE_S:
            return waited_s >= _STALE_S
        is_empty = self._client.llen(queue_name(Lane.INTERACTIVE, message.device)) == 0
        return is_empty or self._outbox.passed_by(pending)

    def _exchange_counts(self) -> None:
        """Publish how much waits here, and read how much waits for others."""
        now, mine = self._clock.now(), self._outbox.name
        with self._client.pipeline(transaction=False) as pipe:
            pipe.hset(_WAITING, mine, json.dumps([now, self._outbox.waiting()]))
            pipe.hgetall(_WAITING)
            written = pipe.execute()[1]
        elsewhere, gone = Counter[str](), list[bytes]()
        for name, text in written.items():
            try:
                at, texts = json.loads(text)
                if now - at > _FORGET_S:
                    gone.append(name)
                elif name.decode() != mine:
                    elsewhere.update({str(device): int(count) for device, count in texts.items()})
            except (ValueError, TypeError, AttributeError):  # another version wrote it, or somebody else
                gone.append(name)
        if gone:
            self._client.hdel(_WAITING, *gone)
        self._elsewhere = elsewhere


def _since(first_seen: dict[T, float], what: T) -> float:
    """Seconds since this was first asked about `what`."""
    now = time.monotonic()
    return now - first_seen.setdefault(what, now)
