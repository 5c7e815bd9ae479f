"""kombu's transport for Redis, which can also be closed after its connection was lost.

kombu acknowledges messages, and returns those in hand to their queues, while it closes a channel. If Redis is away at
that moment, the channel has no connection any more and both fail, which ends Celery's loop (kombu 5.7). Neither is
needed then: leases and the database recover what was in hand.
"""

import time
from queue import Empty
from typing import Any

from kombu.exceptions import OperationalError
from kombu.transport import TRANSPORT_ALIASES, redis
from redis import RedisError
from typing_extensions import override

NOT_SENT = (OperationalError, RedisError, OSError, AttributeError)
"""What kombu raises when a message cannot be sent; AttributeError where a connection was just lost (kombu 5.7)."""


class Polls:
    """When the consumer of this process last had an answer from its queues, or had as many messages as it may hold."""

    def __init__(self) -> None:
        self._at = time.monotonic()

    def note(self) -> None:
        """Note that it is so now."""
        self._at = time.monotonic()

    @property
    def age_s(self) -> float:
        """Seconds since then, or since the start."""
        return time.monotonic() - self._at


POLLS = Polls()
"""Those of this process; Redis answers a poll within a second, if only that nothing waits."""


class QoS(redis.QoS):
    """The messages in hand of a channel."""

    @override
    def can_consume(self) -> bool:
        can: bool = super().can_consume()
        if not can:
            POLLS.note()
        return can

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

    @override
    def _brpop_read(self, **options: Any) -> Any:
        try:
            read = super()._brpop_read(**options)
        except Empty:
            POLLS.note()
            raise
        POLLS.note()
        return read


class Transport(redis.Transport):
    """kombu's transport with this channel."""

    Channel = Channel


def use() -> None:
    """Let kombu take this transport for the URLs of Redis, in this process."""
    for scheme in ("redis", "rediss"):
        TRANSPORT_ALIASES[scheme] = f"{__name__}:Transport"
