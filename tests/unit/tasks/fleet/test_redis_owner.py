"""One Redis serves one installation."""

import fakeredis
import pytest

from semel.errors import ConflictError, UnavailableError
from semel.tasks.fleet.redis_owner import RedisOwner
from tests.support.fleet import Fleet


@pytest.fixture
def client() -> "fakeredis.FakeRedis":
    return fakeredis.FakeRedis()


def test_all_processes_of_an_installation_share_a_redis(client: "fakeredis.FakeRedis") -> None:
    for _ in range(2):
        RedisOwner(client, "one").renew()
    assert 0 < client.ttl("semel:installation") <= 20


def test_another_installation_is_refused_and_learns_what_to_do(client: "fakeredis.FakeRedis") -> None:
    RedisOwner(client, "one").renew()
    with pytest.raises(ConflictError, match="another of its databases, such as redis:"):
        RedisOwner(client, "other").renew()
    RedisOwner(client, "one").renew()


def test_a_redis_that_nobody_uses_any_more_is_free(client: "fakeredis.FakeRedis") -> None:
    RedisOwner(client, "one").renew()
    client.delete("semel:installation")  # as when its time has run out
    RedisOwner(client, "other").renew()


def test_without_redis_nothing_is_claimed(fleet: Fleet) -> None:
    fleet.server.connected = False
    with pytest.raises(UnavailableError, match="Redis does not answer"):
        RedisOwner(fleet.redis, "one").renew()
