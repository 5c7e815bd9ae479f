"""What claims promise, between threads and between processes."""

import time

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from semel.cache.claims import Claims, LocalClaims, RedisClaims

KEYS = [bytes([i]) * 32 for i in range(4)]


@pytest.fixture(params=["local", "redis"])
def claims(request: pytest.FixtureRequest) -> Claims:
    if request.param == "local":
        return LocalClaims()
    return RedisClaims(request.getfixturevalue("redis_client"), ttl_s=30, owner="w")


def test_a_key_has_one_holder(claims: Claims) -> None:
    first = claims.take(KEYS[:2])
    second = claims.take(KEYS[1:3])
    assert first.keys == set(KEYS[:2])
    assert second.keys == {KEYS[2]}


def test_released_keys_are_free(claims: Claims) -> None:
    lease = claims.take(KEYS)
    lease.release(KEYS[:1])
    assert claims.take(KEYS).keys == {KEYS[0]}


def test_closing_a_lease_frees_its_remaining_keys(claims: Claims) -> None:
    claims.take(KEYS).close()
    assert claims.take(KEYS).keys == set(KEYS)


def test_the_claims_of_a_dead_process_expire(redis_client: "redis.Redis") -> None:
    RedisClaims(redis_client, ttl_s=0.1, owner="w").take(KEYS)
    time.sleep(0.2)
    assert RedisClaims(redis_client, ttl_s=0.1, owner="w").take(KEYS).keys == set(KEYS)


def test_renewed_claims_last(redis_client: "redis.Redis") -> None:
    claims = RedisClaims(redis_client, ttl_s=1, owner="w")
    claims.take(KEYS)
    for _ in range(4):
        time.sleep(0.4)
        claims.renew()
    assert claims.take(KEYS).keys == set()


def test_an_expired_lease_does_not_free_the_keys_of_its_successor(redis_client: "redis.Redis") -> None:
    claims = RedisClaims(redis_client, ttl_s=0.1, owner="w")
    late = claims.take(KEYS)
    time.sleep(0.2)
    successor = RedisClaims(redis_client, ttl_s=30, owner="w")
    successor.take(KEYS)
    late.close()
    assert successor.take(KEYS).keys == set()


def test_the_claims_of_a_process_that_is_certainly_dead_are_free_at_once(redis_client: "redis.Redis") -> None:
    dead, alive, third = (RedisClaims(redis_client, ttl_s=30, owner=name) for name in ("cpu@a-1-f", "cpu@a-1", "w"))
    dead.take(KEYS[:2])
    alive.take(KEYS[2:])
    assert third.take(KEYS).keys == set()
    third.bury(["cpu@a-1-f", "another"])
    assert third.take(KEYS).keys == set(KEYS[:2])
    assert third.take(KEYS).keys == set(), "the new holder is alive"


def test_claims_without_an_owner_as_an_older_version_makes_them_are_kept(redis_client: "redis.Redis") -> None:
    redis_client.set(b"semel:claim:" + KEYS[0], "0123456789abcdef", px=30_000)
    assert RedisClaims(redis_client, ttl_s=30, owner="w").take(KEYS).keys == set(KEYS[1:])


def test_without_redis_every_key_is_granted() -> None:
    nowhere = redis.Redis(port=1, socket_connect_timeout=0.2, retry=Retry(NoBackoff(), 0))
    lease = RedisClaims(nowhere, ttl_s=1, owner="w").take(KEYS)
    assert lease.keys == set(KEYS)
    lease.close()
