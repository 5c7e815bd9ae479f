"""The requests that this worker has taken: which of them somebody still waits for, and how many texts they have."""

import threading
from collections import deque
from collections.abc import Iterable, Mapping, Sequence

import redis

from semel.log import get_log
from semel.redis_client import RedisClock
from semel.tasks.queue.doorbell import abandoned, ring, take
from semel.tasks.queue.message import Answer, Request

log = get_log("requests")

LOOK_S = 0.5
"""How often to call `HeldRequests.look`."""


class HeldRequests:
    """Requests from the moment they are taken until they are answered. Thread-safe.

    Args:
        worker_id: marks the requests in Redis as taken by this worker.
    """

    def __init__(self, client: "redis.Redis", *, worker_id: str) -> None:
        self._client = client
        self._worker_id = worker_id
        self._clock = RedisClock(client)
        self._held: dict[str, Request] = {}
        self._gone: set[str] = set()
        self._lock = threading.Lock()
        self._undelivered: deque[tuple[str, Mapping[str, Answer]]] = deque()

    def take(self, requests: Sequence[Request]) -> list[Request]:
        """Those of these requests that this worker is to answer: in time, still waited for, and taken by nobody else.

        Without Redis all of them: a request may then be computed twice, but none is lost.
        """
        in_time = [request for request in requests if request.expires_at > self._clock.now()]
        try:
            ours = take(self._client, in_time, worker_id=self._worker_id)
        except redis.RedisError as error:
            log.warning("cannot check whether other workers hold these requests", reason=str(error))
            ours = {request.id for request in in_time}
        taken = [request for request in in_time if request.id in ours]
        if dropped := len(requests) - len(taken):
            log.debug("requests dropped: copies, late, or nobody waits", requests=dropped)
        with self._lock:
            self._held |= {request.id: request for request in taken}
        return taken

    def put_down(self, requests: Iterable[Request]) -> None:
        """Forget requests that are answered or passed on."""
        with self._lock:
            for request in requests:
                self._held.pop(request.id, None)
                self._gone.discard(request.id)

    def wants(self, request: Request) -> bool:
        """Whether somebody still waits for a held request, as far as this worker knows."""
        return request.id not in self._gone and request.expires_at > self._clock.estimate()

    def deliver_later(self, reply_to: str, answers: Mapping[str, Answer]) -> None:
        """Keep answers that could not be delivered, until `look` delivers them."""
        self._undelivered.append((reply_to, answers))

    def look(self) -> None:
        """Deliver what could not be delivered before, and find out which clients have gone. Raises redis.RedisError."""
        self._clock.now()  # measures the clock for `wants`, which must not ask Redis
        while self._undelivered:
            reply_to, answers = self._undelivered[0]
            ring(self._client, reply_to=reply_to, answers=answers)
            self._undelivered.popleft()
        with self._lock:
            held = list(self._held)
        gone = abandoned(self._client, held)
        with self._lock:
            self._gone |= gone & self._held.keys()

    @property
    def texts(self) -> int:
        """Texts in the held requests."""
        with self._lock:
            return sum(len(request.texts) for request in self._held.values())
