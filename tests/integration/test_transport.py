"""Messages in hand: Redis keeps no copy of them, and one that was not begun goes back to its queue."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from kombu import Connection
from kombu.exceptions import OperationalError

from semel.tasks.queue.app import make_app
from semel.tasks.queue.transport import QoS

QUEUE = "bulk.cpu"


@pytest.fixture
def connection(redis_client: "redis.Redis", redis_port: int) -> Iterator[Connection]:
    """A connection to Redis, in whose queue a message waits."""
    app = make_app(f"redis://127.0.0.1:{redis_port}/0")
    app.send_task("semel.embed_chunks", args=[[["job", 3]]], queue=QUEUE, ignore_result=True)
    with app.connection_for_read() as made:
        yield made
    app.close()


def test_a_message_in_hand_leaves_nothing_in_redis(connection: Connection, redis_client: "redis.Redis") -> None:
    message = connection.default_channel.basic_get(QUEUE)
    assert message.decode()[0] == [[["job", 3]]]
    assert isinstance(connection.default_channel.qos, QoS)
    assert not redis_client.llen(QUEUE)
    assert not redis_client.exists("unacked", "unacked_index")
    message.ack()
    connection.default_channel.close()
    assert not redis_client.llen(QUEUE)


def test_a_message_that_was_not_acknowledged_goes_back_and_is_marked(
    connection: Connection, redis_client: "redis.Redis"
) -> None:
    connection.default_channel.basic_get(QUEUE)
    connection.default_channel.close()
    (kept,) = redis_client.lrange(QUEUE, 0, -1)
    message: dict[str, Any] = json.loads(kept)
    assert message["properties"]["delivery_info"]["redelivered"]


def test_a_channel_whose_connection_is_lost_closes(connection: Connection) -> None:
    channel = connection.default_channel
    channel.basic_get(QUEUE)
    channel.connection.client = None
    channel.qos.restore_unacked_once()


def test_redis_that_does_not_answer_is_an_error_of_sending() -> None:
    app = make_app("redis://127.0.0.1:1/0")
    with pytest.raises(OperationalError):
        app.send_task("semel.embed_chunks", args=[[]], queue=QUEUE, ignore_result=True)
