"""One Redis database serves one semel: two installations would take each other's messages."""

import redis

from semel.errors import ConflictError
from semel.redis_client import as_text, unreachable

RENEW_S = 5.0
"""How often to call `RedisOwner.renew`."""

_KEY = "semel:installation"

_TTL_S = 20
"""When all processes of an installation have been gone for this long, another one may use this Redis."""


class RedisOwner:
    """The right of one installation, that is of one database, to use a Redis database.

    Args:
        installation_id: the identity of the database.
    """

    def __init__(self, client: "redis.Redis", installation_id: str) -> None:
        self._client = client
        self._id = installation_id

    def renew(self) -> None:
        """Take or keep the right.

        Raises:
            ConflictError: processes of another installation use this Redis.
            UnavailableError: Redis does not answer.
        """
        try:
            taken = self._client.set(_KEY, self._id, nx=True, ex=_TTL_S)
            found = None if taken else self._client.get(_KEY)
            if found is not None and as_text(found) == self._id:
                self._client.expire(_KEY, _TTL_S)
        except redis.RedisError as error:
            raise unreachable(error) from error
        if found is not None and as_text(found) != self._id:
            raise ConflictError(
                "this Redis already serves a semel with another database, and the two would take each other's work; "
                "set SEMEL_REDIS_URL to another Redis, or to another of its databases, such as "
                f"redis://127.0.0.1:6379/1. If that semel has just been stopped, try again after {_TTL_S} s"
            )
