"""The connection to Redis, and the words for one that does not answer."""

import pytest

from semel.errors import UnavailableError
from semel.redis_client import connect_redis, unreachable


def test_a_client_is_made_without_a_connection() -> None:
    client = connect_redis("redis://127.0.0.1:9/3")  # nothing listens there
    assert client.connection_pool.connection_kwargs["db"] == 3
    client.close()


def test_a_client_gives_up_within_seconds() -> None:
    options = connect_redis("redis://127.0.0.1:9/0").connection_pool.connection_kwargs
    assert (options["socket_connect_timeout"], options["socket_timeout"]) == (3, 10)


@pytest.mark.parametrize("url", ["127.0.0.1:6379", "http://127.0.0.1", "redis://127.0.0.1:port/0"])
def test_a_wrong_url_is_refused_with_the_name_of_the_setting(url: str) -> None:
    with pytest.raises(UnavailableError, match="SEMEL_REDIS_URL is not a Redis URL"):
        connect_redis(url)


def test_the_error_names_the_ways_out() -> None:
    message = str(unreachable(ConnectionRefusedError("refused")))
    assert message.startswith("Redis does not answer (refused)")
    assert "SEMEL_REDIS_URL" in message
    assert "'semel up'" in message
