"""The roster: which workers are alive, kept in Redis with a short time to live."""

from collections.abc import Collection, Sequence

import redis

from semel.kept import Kept
from semel.redis_client import as_text, unreachable
from semel.tasks.fleet.card import WorkerCard

BEAT_S = 2.0
"""Time between two heartbeats of a worker."""

LIVE_S = 8.0
"""A worker that missed three heartbeats is gone."""

_FAILED = "semel:failed-workers"

_FAILED_S = 3600

_MEMBERS = "semel:workers"

_WORKER = "semel:worker:"

_KEPT_S = 1.0
"""`recently_live` reads Redis at most once per second, however many requests arrive."""


class Roster:
    """The live workers. If Redis is emptied, the next heartbeats refill it."""

    def __init__(self, client: "redis.Redis") -> None:
        self._client = client
        self._seen: Kept[list[WorkerCard]] = Kept(_KEPT_S)
        self._missing: set[str] = set()

    def beat(self, card: WorkerCard) -> None:
        """List a worker as alive for the next `LIVE_S` seconds. Raises redis.RedisError."""
        with self._client.pipeline(transaction=False) as pipe:
            pipe.set(_WORKER + card.id, card.to_json(), px=int(LIVE_S * 1000))
            pipe.sadd(_MEMBERS, card.id)
            pipe.execute()

    def report_failed(self, card: WorkerCard) -> None:
        """Record that a worker ends because its device or models cannot be used. Raises redis.RedisError."""
        with self._client.pipeline(transaction=False) as pipe:
            pipe.hset(_FAILED, f"{card.device}@{card.host}", card.to_json())
            pipe.expire(_FAILED, _FAILED_S)
            pipe.delete(_WORKER + card.id)
            pipe.srem(_MEMBERS, card.id)
            pipe.execute()

    def forget_failed(self, card: WorkerCard) -> None:
        """Delete the failure recorded for the device of this worker. Raises redis.RedisError."""
        self._client.hdel(_FAILED, f"{card.device}@{card.host}")

    def failed(self) -> list[WorkerCard]:
        """The workers that ended with a failure, until none has done so for an hour. Raises UnavailableError."""
        try:
            raw = self._client.hvals(_FAILED)
        except redis.RedisError as error:
            raise unreachable(error) from error
        return [WorkerCard.from_json(value) for value in raw]

    def leave(self, worker_id: str) -> None:
        """Remove a worker that stops. Raises redis.RedisError."""
        self._client.delete(_WORKER + worker_id)
        self._client.srem(_MEMBERS, worker_id)

    def live(self) -> list[WorkerCard]:
        """All live workers, ordered by id. Raises UnavailableError when Redis does not answer."""
        try:
            ids = sorted(as_text(m) for m in self._client.smembers(_MEMBERS))
            raw = self._client.mget([_WORKER + i for i in ids]) if ids else []
            gone = [i for i, value in zip(ids, raw, strict=True) if value is None]
            if gone:
                self._client.srem(_MEMBERS, *gone)
        except redis.RedisError as error:
            raise unreachable(error) from error
        return self._seen.put([WorkerCard.from_json(value) for value in raw if value is not None])

    def time_left(self, worker_ids: Sequence[str]) -> list[float]:
        """Seconds until each worker counts as gone; a heartbeat sets them to `LIVE_S`. Raises UnavailableError."""
        try:
            with self._client.pipeline(transaction=False) as pipe:
                for worker_id in worker_ids:
                    pipe.pttl(_WORKER + worker_id)
                return [max(0, left_ms) / 1000 for left_ms in pipe.execute()]
        except redis.RedisError as error:
            raise unreachable(error) from error

    def vanished(self, worker_ids: Collection[str]) -> set[str]:
        """Those of some workers that are certainly dead: two calls in a row found neither a beat nor a connection.

        A worker that is only held up keeps its connections to Redis, which have its name. Where Redis does not list
        its connections, no worker is certainly dead.

        Raises:
            UnavailableError: Redis does not answer.
        """
        missing = set(worker_ids) - {card.id for card in self.live()}
        if missing:
            try:
                missing -= {str(client["name"]) for client in self._client.client_list()}
            except redis.ResponseError:  # this user may not ask, or a proxy does not know the command
                missing = set()
            except redis.RedisError as error:
                raise unreachable(error) from error
        certain, self._missing = missing & self._missing, missing
        return certain

    def recently_live(self) -> Sequence[WorkerCard]:
        """The result of `live`, at most one second old; cheap enough for every request. Raises UnavailableError."""
        return self._seen.get(self.live)
