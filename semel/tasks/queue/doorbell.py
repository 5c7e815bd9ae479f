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
from semel.tasks.queue.message import Answer, Request

log = get_log("doorbell")

_REQUEST = "semel:request:"

_BELL = "semel:bell:"

KEPT_S = 600
"""How long the state of a request is kept: longer than a copy of its message may wait in a queue."""

_TAKEN, _ANSWERED, _GONE = "w", "a", "g"
"""The first character of the key: `deaths:worker id` follows, the answer follows, nobody waits any more."""

# KEYS: requests; ARGV: the end of the value by which this worker has taken them.
_GIVE_UP = (
    "for _, k in ipairs(KEYS) do local v = redis.call('GET', k) "
    "if v and string.sub(v, 1, 1) == 'w' and string.sub(v, -#ARGV[1]) == ARGV[1] then redis.call('DEL', k) end end"
)


@dataclass(frozen=True)
class State:
    """What Redis knows of a request.

    Attributes:
        worker: id of the worker that took it; None if no worker has, or the answer is there.
        deaths: how many workers had died of it, as far as that worker knows.
        answer: None until there is one.
    """

    worker: str | None = None
    deaths: int = 0
    answer: Answer | None = None


def take(client: "redis.Redis", requests: Sequence[Request], *, worker_id: str) -> set[str]:
    """Take requests for a worker; returns the ids of those that no worker has taken, and that a client waits for.

    Raises redis.RedisError.
    """
    with client.pipeline(transaction=False) as pipe:
        for request in requests:
            pipe.set(_REQUEST + request.id, f"{_TAKEN}{request.deaths}:{worker_id}", nx=True, ex=KEPT_S)
        won = pipe.execute()
    return {request.id for request, ours in zip(requests, won, strict=True) if ours}


def give_up(client: "redis.Redis", request_ids: Sequence[str], *, worker_id: str) -> None:
    """Let another worker take these requests, which this worker has taken; a request that was abandoned stays so.

    Raises redis.RedisError.
    """
    if request_ids:
        client.eval(_GIVE_UP, len(request_ids), *(_REQUEST + each for each in request_ids), f":{worker_id}")


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
    return {request_id for request_id, value in zip(request_ids, raw, strict=True) if value == _GONE.encode()}


def states(client: "redis.Redis", request_ids: Sequence[str]) -> list[State]:
    """The state of each request. Raises redis.RedisError."""
    raw = client.mget([_REQUEST + request_id for request_id in request_ids]) if request_ids else []
    return [_state(value) for value in raw]


def _state(value: Any) -> State:
    text = "" if value is None else value.decode()
    if text.startswith(_TAKEN):
        deaths, _, worker = text[1:].partition(":")
        return State(worker=worker, deaths=int(deaths))
    return State(answer=Answer.from_json(text[1:])) if text.startswith(_ANSWERED) else State()


def ring(client: "redis.Redis", *, reply_to: str, answers: Mapping[str, Answer]) -> None:
    """Store the answers of requests and notify their waiter, in one round trip. Raises redis.RedisError.

    What is stored leaves out the rows, which are in the cache: Redis must stay small.
    """
    texts = {request_id: answer.to_json() for request_id, answer in answers.items()}
    with client.pipeline(transaction=False) as pipe:
        pipe.publish(_BELL + reply_to, json.dumps(texts))
        for request_id, answer in answers.items():
            kept = answer.to_json(with_rows=False) if answer.rows else texts[request_id]
            pipe.set(_REQUEST + request_id, _ANSWERED + kept, ex=KEPT_S)
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
        except (ValueError, TypeError, AttributeError, RecursionError) as error:  # whoever sent it, listening goes on
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
