"""The state of requests in Redis, and the doorbell by which a worker notifies the process that waits for them.

Each request has one key: it is missing until a worker takes the request, then holds the worker's id, then the answer.
The answer also comes by pub/sub, where it may be lost; the key is where a waiter that was not notified looks for it.
The computed vectors are in the cache in any case, so Redis may lose all of this.
"""

import json
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import redis

from semel.log import get_log
from semel.tasks.queue.message import Answer

log = get_log("doorbell")

_REQUEST = "semel:request:"

_BELL = "semel:bell:"

KEPT_S = 600
"""How long the state of a request is kept: longer than kombu may take to deliver a message again
(`semel.tasks.queue.app.VISIBILITY_TIMEOUT_S`), so that a late copy is recognised."""

_TAKEN, _ANSWERED, _GONE = b"w", b"a", b"g"
"""The first byte of the key: a worker's id follows, the answer follows, nobody waits any more."""


@dataclass(frozen=True)
class State:
    """What Redis knows of a request.

    Attributes:
        worker: id of the worker that took it; None if no worker has, or the answer is there.
        answer: None until there is one.
    """

    worker: str | None = None
    answer: Answer | None = None


def take(client: "redis.Redis", request_ids: Sequence[str], *, worker_id: str) -> set[str]:
    """Take requests for a worker; returns those that no worker has taken before and that a client still waits for.

    Raises redis.RedisError.
    """
    with client.pipeline(transaction=False) as pipe:
        for request_id in request_ids:
            pipe.set(_REQUEST + request_id, _TAKEN + worker_id.encode(), nx=True, ex=KEPT_S)
        won = pipe.execute()
    return {request_id for request_id, ours in zip(request_ids, won, strict=True) if ours}


def release(client: "redis.Redis", request_ids: Iterable[str]) -> None:
    """Let another worker take these requests. Raises redis.RedisError."""
    keys = [_REQUEST + request_id for request_id in request_ids]
    if keys:
        client.delete(*keys)


def abandon(client: "redis.Redis", request_ids: Iterable[str]) -> None:
    """Record that nobody waits for these requests any more. Raises redis.RedisError."""
    with client.pipeline(transaction=False) as pipe:
        for request_id in request_ids:
            pipe.set(_REQUEST + request_id, _GONE, ex=KEPT_S)
        pipe.execute()


def abandoned(client: "redis.Redis", request_ids: Sequence[str]) -> set[str]:
    """Those of these requests that nobody waits for any more. Raises redis.RedisError."""
    raw = client.mget([_REQUEST + request_id for request_id in request_ids]) if request_ids else []
    return {request_id for request_id, value in zip(request_ids, raw, strict=True) if value == _GONE}


def states(client: "redis.Redis", request_ids: Sequence[str]) -> list[State]:
    """The state of each request. Raises redis.RedisError."""
    raw = client.mget([_REQUEST + request_id for request_id in request_ids]) if request_ids else []
    return [_state(value) for value in raw]


def _state(value: Any) -> State:
    if value is None or value == _GONE:
        return State()
    if value.startswith(_TAKEN):
        return State(worker=value[1:].decode())
    return State(answer=Answer.from_json(value[1:]))


def ring(client: "redis.Redis", *, reply_to: str, answers: Mapping[str, Answer]) -> None:
    """Store the answers of requests and notify their waiter, in one round trip. Raises redis.RedisError."""
    texts = {request_id: answer.to_json() for request_id, answer in answers.items()}
    with client.pipeline(transaction=False) as pipe:
        for request_id, text in texts.items():
            pipe.set(_REQUEST + request_id, _ANSWERED + text.encode(), ex=KEPT_S)
        pipe.publish(_BELL + reply_to, json.dumps(texts))
        pipe.execute()


class Doorbell:
    """The waiting side: one listening thread for all requests of a process.

    Args:
        on_answer: called with the id of a request and its answer, in the listening thread.

    Attributes:
        name: the `reply_to` of this process's requests.
    """

    def __init__(self, client: "redis.Redis", on_answer: Callable[[str, Answer], None]) -> None:
        self._client = client
        self._on_answer = on_answer
        self.name = uuid.uuid4().hex
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="doorbell", daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        while not self._stopping.is_set():
            try:
                with self._client.pubsub(ignore_subscribe_messages=True) as subscription:
                    subscription.subscribe(_BELL + self.name)
                    while not self._stopping.is_set():
                        self._receive(subscription.get_message(timeout=1.0))
            except redis.RedisError:
                time.sleep(0.5)  # meanwhile the stored answers are looked for

    def _receive(self, message: dict[str, object] | None) -> None:
        if message is None or not message["data"] or not isinstance(message["data"], bytes):
            return
        try:
            answers = {request_id: Answer.from_json(text) for request_id, text in json.loads(message["data"]).items()}
        except (
            ValueError,
            TypeError,
            AttributeError,
            RecursionError,
        ) as error:  # whoever sent it: the listener goes on
            log.warning("a notification that is no answer was ignored", reason=str(error))
            return
        for request_id, answer in answers.items():
            self._on_answer(request_id, answer)

    def close(self) -> None:
        """Stop listening; returns after at most three seconds."""
        self._stopping.set()
        with suppress(redis.RedisError):
            self._client.publish(_BELL + self.name, b"")  # an empty message ends the listener's wait for the next one
        self._thread.join(timeout=3)
