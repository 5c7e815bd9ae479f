"""kombu's transport for Redis, without copies of the messages in hand, and which survives a lost connection.

kombu writes each message that it hands out into a second place in Redis, and deletes it there when it is acknowledged:
two round trips for each message, so that a message of a killed worker is delivered again after minutes. Leases and the
keys of requests recover it within seconds, so there are no copies here (docs/adr/0035).

kombu returns the messages in hand to their queues while it closes a channel. If Redis is away at that moment, the
channel has no connection any more and that fails, which ends Celery's loop (kombu 5.7). It is not needed then.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from queue import Empty
from typing import Any

from kombu.exceptions import OperationalError
from kombu.transport import TRANSPORT_ALIASES, redis, virtual
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


class QoS(virtual.QoS):
    """The messages in hand of a channel."""

    @override
    def can_consume(self) -> bool:
        can: bool = super().can_consume()
        if not can:
            POLLS.note()
        return can

    @override
    def restore_unacked_once(self, stderr: Any = None) -> None:
        if getattr(self.channel.connection, "client", None) is not None:
            super().restore_unacked_once(stderr)


class Channel(redis.Channel):
    """A channel without copies of the messages in hand, which closes without an error."""

    ack_emulation = False  # kombu's name for the copies

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.QoS = QoS  # kombu has put its own there
        self._kept: Any = None

    @override
    @contextmanager
    def conn_or_acquire(self, client: Any = None) -> Iterator[Any]:
        """A client for one command. It is kept: kombu makes one for each command, which costs more than the command."""
        if client is None and (self._kept is None or self._kept.connection_pool is not self.pool):
            self._kept = self._create_client()
        yield client or self._kept

    @override
    def _restore(self, message: Any, leftmost: bool = False) -> None:
        """Return a message to its queue, marked as one that was delivered before."""
        place = message.delivery_info
        with self.conn_or_acquire() as client:
            self._do_restore_message(message._raw, place["exchange"], place["routing_key"], client, leftmost)

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
