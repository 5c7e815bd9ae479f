"""The roster: which workers are alive, kept in Redis with a short time to live."""

from collections.abc import Collection, Sequence

import redis

from semel.kept import Kept
from semel.log import get_log
from semel.redis_client import as_text, unreachable
from semel.tasks.fleet.card import WorkerCard

log = get_log("roster")

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


_NEVER, _UNCOUNTED = -1, 0
"""Beats of a worker that the last look did not find without a connection; of a version that does not count them."""


class Roster:
    """The live workers. If Redis is emptied, the next heartbeats refill it."""

    def __init__(self, client: "redis.Redis") -> None:
        self._client = client
        self._seen: Kept[list[WorkerCard]] = Kept(_KEPT_S)
        self._unconnected: dict[str, int | None] = {}  # worker → its beats; None if it is not on the roster

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
        """The workers that are certainly dead, of those on the roster and of `worker_ids`; they leave the roster.

        A worker is certainly dead if two calls in a row find no connection with its name, and no beat between them.
        One that is only held up keeps its connections to Redis: the kernel closes those of a dead process only. Where
        Redis does not list its connections, no worker is certainly dead.

        Raises:
            UnavailableError: Redis does not answer.
        """
        beats: dict[str, int | None] = dict.fromkeys(worker_ids) | {card.id: card.beats for card in self.live()}
        unconnected = beats.keys() - self._connected(otherwise=beats.keys())
        before, self._unconnected = self._unconnected, {worker: beats[worker] for worker in unconnected}
        silent = {worker for worker in unconnected if before.get(worker, _NEVER) == beats[worker] != _UNCOUNTED}
        for worker in silent:
            if beats[worker] is not None:
                self._dismiss(worker)
        return silent

    def _connected(self, otherwise: Collection[str]) -> set[str]:
        """The names of the connections to Redis; `otherwise` where Redis does not list them."""
        own = self._client.connection_pool.connection_kwargs.get("client_name")
        try:
            names = {str(client["name"]) for client in self._client.client_list()}
        except redis.ResponseError:  # this user may not ask, or a proxy does not know the command
            return set(otherwise)
        except redis.RedisError as error:
            raise unreachable(error) from error
        return names if own is None or own in names else set(otherwise)  # a proxy lists connections of its own

    def _dismiss(self, worker_id: str) -> None:
        log.warning("this worker is dead: it has neither a heartbeat nor a connection", worker=worker_id)
        try:
            self.leave(worker_id)
        except redis.RedisError as error:
            raise unreachable(error) from error

    def recently_live(self) -> Sequence[WorkerCard]:
        """The result of `live`, at most one second old; cheap enough for every request. Raises UnavailableError."""
        return self._seen.get(self.live)
