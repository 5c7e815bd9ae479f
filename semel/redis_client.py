"""The connection to Redis."""

import redis

from semel.errors import UnavailableError


def unreachable(error: Exception) -> UnavailableError:
    """The error for a Redis that does not answer."""
    return UnavailableError(
        f"Redis does not answer ({error}); start it, set SEMEL_REDIS_URL, or run 'semel up', which starts one"
    )


def connect_redis(url: str) -> "redis.Redis":
    """A client with short timeouts; it connects on first use. Raises UnavailableError for a wrong URL."""
    try:
        return redis.Redis.from_url(url, socket_connect_timeout=3, socket_timeout=10, health_check_interval=10)
    except ValueError as error:
        raise UnavailableError(f"SEMEL_REDIS_URL is not a Redis URL: {error}") from None
