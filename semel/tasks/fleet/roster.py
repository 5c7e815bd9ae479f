"""The roster: which workers are alive, kept in Redis with a short time to live."""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

import redis

from semel.errors import UnavailableError
from semel.tasks.fleet.meter import Work
from semel.values import Measured

BEAT_S = 2.0
LIVE_S = 8.0
"""A worker that missed three beats is gone."""

_FAILED = "semel:failed-workers"
_FAILED_S = 3600

_MEMBERS = "semel:workers"
_WORKER = "semel:worker:"


@dataclass(frozen=True)
class WorkerCard:
    """What a worker says of itself.

    Attributes:
        state: `loading` until the default model is in memory, then `ready`; work may be sent before, and waits.
            `failed` when it ended because its device is not fit.
        why: of device and dtype; of a failed one, what is wrong with it.
        models: names that it serves.
        about: name and memory of the device.
        software: its device imitates a GPU on the CPU; work goes there last.
        spaces: fingerprints that it serves, in hex.
        loaded: names in memory.
        load_s: what loading them took.
        memory_bytes: of the device, or of the process where both share it.
        gpu_utilization: 0 to 1, where the driver tells.
        texts_per_s: measured over its life, while the device was busy.
        progress: (job id, position, texts that are done) of the chunks in hand.
        measured: what `semel devices --measure` found for this device, if it was run.
    """

    id: str
    device: str
    host: str
    pid: int
    started_at: float
    state: str = "ready"
    dtype: str = ""
    why: str = ""
    about: str = ""
    software: bool = False
    models: list[str] = field(default_factory=list)
    spaces: list[str] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)
    load_s: float = 0.0
    memory_bytes: int = 0
    gpu_utilization: float | None = None
    texts_per_s: float = 0.0
    memory_halvings: int = 0
    progress: list[tuple[str, int, int]] = field(default_factory=list)
    measured: Measured | None = None
    work: Work = field(default_factory=Work)

    def serves(self, model: str, fingerprint: bytes) -> bool:
        """Whether it makes vectors of this space, under this name: that is how it is asked for them."""
        return model in self.models and fingerprint.hex() in self.spaces

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: bytes | str) -> "WorkerCard":
        """A card of another version may lack fields, or have more."""
        values = {key: value for key, value in json.loads(text).items() if key in cls.__dataclass_fields__}
        measured = values.get("measured")
        work = Work(**{k: v for k, v in values.get("work", {}).items() if k in Work.__dataclass_fields__})
        return cls(**{**values, "work": work, "measured": Measured(**measured) if measured else None})


class Roster:
    """Who is alive. An emptied Redis is filled again by the next beats."""

    def __init__(self, client: "redis.Redis") -> None:
        self._client = client
        self._seen: tuple[float, list[WorkerCard]] = (0.0, [])

    def beat(self, card: WorkerCard) -> None:
        """Announce a worker for the next `LIVE_S` seconds. Raises redis.RedisError."""
        with self._client.pipeline(transaction=False) as pipe:
            pipe.set(_WORKER + card.id, card.to_json(), px=int(LIVE_S * 1000))
            pipe.sadd(_MEMBERS, card.id)
            pipe.execute()

    def report_failed(self, card: WorkerCard) -> None:
        """Leave word of a worker that ends because its device is not fit. Raises redis.RedisError."""
        with self._client.pipeline(transaction=False) as pipe:
            pipe.hset(_FAILED, f"{card.device}@{card.host}", card.to_json())
            pipe.expire(_FAILED, _FAILED_S)
            pipe.delete(_WORKER + card.id)
            pipe.srem(_MEMBERS, card.id)
            pipe.execute()

    def forget_failed(self, card: WorkerCard) -> None:
        """Its device works again. Raises redis.RedisError."""
        self._client.hdel(_FAILED, f"{card.device}@{card.host}")

    def failed(self) -> list[WorkerCard]:
        """Devices that were found unfit within the last hour. Raises UnavailableError."""
        try:
            raw = self._client.hvals(_FAILED)
        except redis.RedisError as error:
            raise unreachable(error) from error
        return [WorkerCard.from_json(value) for value in raw]

    def leave(self, worker_id: str) -> None:
        """Take a worker off the list. Raises redis.RedisError."""
        self._client.delete(_WORKER + worker_id)
        self._client.srem(_MEMBERS, worker_id)

    def live(self) -> list[WorkerCard]:
        """All live workers. Raises UnavailableError when Redis does not answer."""
        try:
            ids = sorted(_text(m) for m in self._client.smembers(_MEMBERS))
            raw = self._client.mget([_WORKER + i for i in ids]) if ids else []
            gone = [i for i, value in zip(ids, raw, strict=True) if value is None]
            if gone:
                self._client.srem(_MEMBERS, *gone)
        except redis.RedisError as error:
            raise unreachable(error) from error
        cards = [WorkerCard.from_json(value) for value in raw if value is not None]
        self._seen = (time.monotonic(), cards)
        return cards

    def time_left(self, worker_ids: Sequence[str]) -> list[float]:
        """Seconds until each would be taken for dead; a beat sets it to `LIVE_S`. Raises UnavailableError."""
        try:
            with self._client.pipeline(transaction=False) as pipe:
                for worker_id in worker_ids:
                    pipe.pttl(_WORKER + worker_id)
                return [max(0, left_ms) / 1000 for left_ms in pipe.execute()]
        except redis.RedisError as error:
            raise unreachable(error) from error

    def live_lately(self) -> Sequence[WorkerCard]:
        """As `live`, at most one second old: for every request."""
        seen_at, cards = self._seen
        return cards if time.monotonic() - seen_at <= 1.0 else self.live()


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


def unreachable(error: Exception) -> UnavailableError:
    """One sentence for a Redis that does not answer."""
    return UnavailableError(
        f"Redis does not answer ({error}); start it, or set SEMEL_REDIS_URL, or run 'semel up', which brings one along"
    )


def connect_redis(url: str) -> "redis.Redis":
    """A client with short timeouts; it connects when first used."""
    try:
        return redis.Redis.from_url(url, socket_connect_timeout=3, socket_timeout=10, health_check_interval=10)
    except ValueError as error:
        raise UnavailableError(f"SEMEL_REDIS_URL is not a Redis URL: {error}") from None
