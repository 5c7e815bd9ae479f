"""The doorbell: a worker notifies a waiter that its request is done.

The answer comes with the notification over pub/sub and may be lost there, so it is also kept in Redis for a while,
where a waiter that was not notified looks for it. The computed vectors are in the cache in any case.
"""

import threading
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass, field

import redis

from semel.log import get_log
from semel.tasks.queue.message import Answer

log = get_log("doorbell")

_ANSWER = "semel:answer:"

_BELL = "semel:bell:"

ANSWER_TTL_S = 120
"""How long an answer is kept in Redis; by default no request waits longer (SEMEL_REQUEST_TIMEOUT_S)."""

_ID_BYTES = 32
"""Length of a request id, `uuid4().hex`, which precedes the answer in a notification."""


def ring(client: "redis.Redis", *, request_id: str, reply_to: str, answer: Answer) -> None:
    """Store the answer and notify its waiter. Raises redis.RedisError."""
    text = answer.to_json()
    with client.pipeline(transaction=False) as pipe:
        pipe.set(_ANSWER + request_id, text, ex=ANSWER_TTL_S)
        pipe.publish(_BELL + reply_to, request_id + text)
        pipe.execute()


@dataclass
class _Waiter:
    rung: threading.Event = field(default_factory=threading.Event)
    answer: bytes | None = None


class Doorbell:
    """The waiting side: one per process, with one listening thread for all its requests.

    Attributes:
        name: the `reply_to` of this process's requests.
    """

    def __init__(self, client: "redis.Redis") -> None:
        self._client = client
        self.name = uuid.uuid4().hex
        self._waiting: dict[str, _Waiter] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="doorbell", daemon=True)
        self._thread.start()

    def expect(self, request_id: str) -> None:
        """Register a request; call this before the request is sent."""
        self._waiting[request_id] = _Waiter()

    def wait(self, request_id: str, *, timeout_s: float) -> Answer | None:
        """Wait for the answer; None if there is none after `timeout_s`. Raises redis.RedisError.

        May be called again for the same request; call `forget` at the end.
        """
        waiter = self._waiting[request_id]
        raw = waiter.answer if waiter.rung.wait(timeout_s) else self._client.get(_ANSWER + request_id)
        return None if raw is None else Answer.from_json(raw)

    def forget(self, request_id: str) -> None:
        """End the wait for a request; a later answer to it is ignored."""
        self._waiting.pop(request_id, None)

    def _listen(self) -> None:
        while not self._stopping.is_set():
            try:
                with self._client.pubsub(ignore_subscribe_messages=True) as subscription:
                    subscription.subscribe(_BELL + self.name)
                    while not self._stopping.is_set():
                        self._receive(subscription.get_message(timeout=1.0))
            except redis.RedisError:
                time.sleep(0.5)  # meanwhile waiters read the stored answers

    def _receive(self, message: dict[str, object] | None) -> None:
        if message is None or not isinstance(message["data"], bytes):
            return
        request_id, answer = message["data"][:_ID_BYTES].decode(), message["data"][_ID_BYTES:]
        waiter = self._waiting.get(request_id)
        if waiter is not None:
            waiter.answer = answer
            waiter.rung.set()

    def close(self) -> None:
        """Stop listening; returns after at most three seconds."""
        self._stopping.set()
        with suppress(redis.RedisError):
            self._client.publish(_BELL + self.name, b"")  # an empty message ends the listener's wait for the next one
        self._thread.join(timeout=3)
