"""kombu's transport for Redis, which can also be closed after its connection was lost.

kombu acknowledges messages, and returns those in hand to their queues, while it closes a channel. If Redis is away at
that moment, the channel has no connection any more and both fail, which ends Celery's loop (kombu 5.7). Neither is
needed then: leases and the database recover what was in hand.
"""

from typing import Any

from kombu.exceptions import OperationalError
from kombu.transport import TRANSPORT_ALIASES, redis
from redis import RedisError
from typing_extensions import override

NOT_SENT = (OperationalError, RedisError, OSError, AttributeError)
"""What kombu raises when a message cannot be sent; AttributeError where a connection was just lost (kombu 5.7)."""


class QoS(redis.QoS):
    """The messages in hand of a channel."""

    @override
    def ack(self, delivery_tag: str) -> None:
        if self._is_connected():
            super().ack(delivery_tag)

    @override
    def restore_unacked_once(self, stderr: Any = None) -> None:
        if self._is_connected():
            super().restore_unacked_once(stderr)

    def _is_connected(self) -> bool:
        return getattr(self.channel.connection, "client", None) is not None


class Channel(redis.Channel):
    """A channel that closes without an error."""

    QoS = QoS


class Transport(redis.Transport):
    """kombu's transport with this channel."""

    Channel = Channel


def use() -> None:
    """Let kombu take this transport for the URLs of Redis, in this process."""
    for scheme in ("redis", "rediss"):
        TRANSPORT_ALIASES[scheme] = f"{__name__}:Transport"
