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
    return RedisClaims(request.getfixturevalue("redis_client"), ttl_s=30)


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
    RedisClaims(redis_client, ttl_s=0.1).take(KEYS)
    time.sleep(0.2)
    assert RedisClaims(redis_client, ttl_s=0.1).take(KEYS).keys == set(KEYS)


def test_renewed_claims_last(redis_client: "redis.Redis") -> None:
    claims = RedisClaims(redis_client, ttl_s=1)
    claims.take(KEYS)
    for _ in range(4):
        time.sleep(0.4)
        claims.renew()
    assert claims.take(KEYS).keys == set()


def test_an_expired_lease_does_not_free_the_keys_of_its_successor(redis_client: "redis.Redis") -> None:
    claims = RedisClaims(redis_client, ttl_s=0.1)
    late = claims.take(KEYS)
    time.sleep(0.2)
    successor = RedisClaims(redis_client, ttl_s=30)
    successor.take(KEYS)
    late.close()
    assert successor.take(KEYS).keys == set()


def test_without_redis_every_key_is_granted() -> None:
    nowhere = redis.Redis(port=1, socket_connect_timeout=0.2, retry=Retry(NoBackoff(), 0))
    lease = RedisClaims(nowhere, ttl_s=1).take(KEYS)
    assert lease.keys == set(KEYS)
    lease.close()
