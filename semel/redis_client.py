"""The connection to Redis."""

import time

import redis

from semel.errors import UnavailableError
from semel.log import get_log

log = get_log("redis")


_REFUSALS = ("OOM ", "READONLY ", "MISCONF ", "You can't write against a read only", "command not allowed when used")
"""How the messages begin of a Redis that is full, of a replica, and of one that cannot save to its disk."""


def unreachable(error: Exception) -> UnavailableError:
    """The error for a Redis that does not answer, or that answers and refuses to write."""
    if any(str(error).startswith(refusal) or f"({refusal}" in str(error) for refusal in _REFUSALS):
        return UnavailableError(
            f"Redis refuses to write ({error}); give it more memory (maxmemory) or disk space, or let SEMEL_REDIS_URL "
            "name the primary and not a replica"
        )
    return UnavailableError(
        f"Redis does not answer ({error}); start it, set SEMEL_REDIS_URL, or run 'semel up', which starts one"
    )


def connect_redis(url: str, *, name: str | None = None, timeout_s: float = 10.0) -> "redis.Redis":
    """A client with short timeouts; it connects on first use. Raises UnavailableError for a wrong URL.

    Args:
        name: of its connections, in Redis' list of clients.
        timeout_s: how long a command may take.
    """
    try:
        return redis.Redis.from_url(
            url,
            socket_connect_timeout=min(3.0, timeout_s),
            socket_timeout=timeout_s,
            health_check_interval=10,
            client_name=name,
        )
    except ValueError:  # its message may have a part of the password
        raise UnavailableError(
            "SEMEL_REDIS_URL is not a Redis URL, such as redis://USER:PASSWORD@HOST:6379/0; special characters in the "
            "password must be percent-encoded (@ is %40, / is %2F)"
        ) from None


def wait_for_redis(client: "redis.Redis", *, every_s: float = 1.0) -> None:
    """Return when Redis answers; the log says that this process waits for it.

    Raises UnavailableError if Redis answers that it does not serve this client (a wrong password, no such database).
    """
    waits = False
    while True:
        try:
            client.ping()
        except (redis.AuthenticationError, redis.ResponseError) as error:
            raise unreachable(error) from error
        except redis.RedisError as error:
            if not waits:
                log.warning("waiting for Redis", reason=str(error))
            waits = True
            time.sleep(every_s)
        else:
            if waits:
                log.info("Redis answers")
            return


def as_text(value: bytes | str) -> str:
    """An answer of Redis as a string, whether or not the client decodes answers."""
    return value.decode() if isinstance(value, bytes) else value


class RedisClock:
    """The time of Redis, which is the same for every process: the clocks of hosts differ. Thread-safe."""

    _CHECK_S = 10.0
    """How often the difference is measured: clocks drift by less than a millisecond in that time."""

    def __init__(self, client: "redis.Redis") -> None:
        self._client = client
        self._ahead_s = 0.0
        self._check_at = 0.0

    def now(self) -> float:
        """Unix seconds. Without Redis, the difference that was measured last is used."""
        if time.monotonic() >= self._check_at:
            self._check_at = time.monotonic() + self._CHECK_S
            self._measure()
        return self.estimate()

    def estimate(self) -> float:
        """As `now`, by the difference that was measured last: never asks Redis."""
        return time.time() + self._ahead_s

    def _measure(self) -> None:
        before = time.time()
        try:
            seconds, micros = self._client.time()
        except redis.RedisError:
            return
        self._ahead_s = seconds + micros / 1e6 - (before + time.time()) / 2
