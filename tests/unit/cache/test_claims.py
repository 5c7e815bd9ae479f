"""Claims: what is granted, counted, renewed and released, and what happens when Redis forgets or fails."""

import gc
import threading
import weakref
from collections.abc import Sequence

import fakeredis
import pytest
import redis

from semel.cache.claims import Lease, LocalClaims, RedisClaims

KEYS = [bytes([i]) * 32 for i in range(4)]
TTL_S = 30.0


@pytest.fixture
def server() -> fakeredis.FakeServer:
    return fakeredis.FakeServer()


@pytest.fixture
def client(server: fakeredis.FakeServer) -> "redis.Redis":
    return fakeredis.FakeRedis(server=server)


@pytest.fixture
def claims(client: "redis.Redis") -> RedisClaims:
    return RedisClaims(client, ttl_s=TTL_S, owner="w")


def name(key: bytes) -> bytes:
    """The claim of this key in Redis."""
    return b"semel:claim:" + key


def counts(claims: RedisClaims) -> tuple[int, int, int]:
    return claims.taken, claims.held, claims.expired


# Leases


def test_a_lease_releases_keys_as_they_are_done_and_the_rest_when_it_closes() -> None:
    released: list[Sequence[bytes]] = []
    lease = Lease(KEYS[:3], lambda _, keys: released.append(sorted(keys)))
    lease.release(KEYS[:1])
    assert lease.keys == set(KEYS[1:3])
    lease.close()
    assert lease.keys == set()
    assert released == [KEYS[:1], KEYS[1:3]]


def test_no_two_leases_have_the_same_token() -> None:
    assert len({Lease([], lambda *_: None).token for _ in range(100)}) == 100


# Between the threads of one process


def test_every_key_goes_to_one_of_many_threads() -> None:
    claims, keys = LocalClaims(), [i.to_bytes(32, "big") for i in range(200)]
    leases: list[Lease] = []
    start = threading.Barrier(8)

    def take() -> None:
        start.wait(5)
        leases.append(claims.take(keys))

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(5)
    granted = [key for lease in leases for key in lease.keys]
    assert sorted(granted) == keys


def test_renewing_local_claims_changes_nothing() -> None:
    claims = LocalClaims()
    claims.take(KEYS[:1])
    claims.renew()
    assert claims.take(KEYS[:2]).keys == {KEYS[1]}


# Between processes


def test_the_keys_that_another_process_holds_are_left_out_and_counted(client: "redis.Redis") -> None:
    first, second = RedisClaims(client, ttl_s=TTL_S, owner="w"), RedisClaims(client, ttl_s=TTL_S, owner="w")
    first.take(KEYS[:3])
    assert second.take(KEYS).keys == {KEYS[3]}
    assert (counts(first), counts(second)) == ((3, 0, 0), (1, 3, 0))


def test_a_key_that_is_listed_twice_is_claimed_once(claims: RedisClaims) -> None:
    lease = claims.take([KEYS[0], KEYS[0], KEYS[1]])
    assert lease.keys == set(KEYS[:2])
    assert claims.taken == 2


def test_taking_no_keys_gives_an_empty_lease(claims: RedisClaims) -> None:
    lease = claims.take([])
    lease.close()
    assert lease.keys == set()
    assert counts(claims) == (0, 0, 0)


def test_a_claim_expires_by_itself(claims: RedisClaims, client: "redis.Redis") -> None:
    claims.take(KEYS[:1])
    assert 0 < client.pttl(name(KEYS[0])) <= TTL_S * 1000


def test_a_released_claim_is_gone_from_redis(claims: RedisClaims, client: "redis.Redis") -> None:
    lease = claims.take(KEYS[:2])
    lease.release(KEYS[:1])
    assert client.keys() == [name(KEYS[1])]
    lease.close()
    assert client.keys() == []


def test_a_claim_that_was_gone_before_its_release_is_counted(claims: RedisClaims, client: "redis.Redis") -> None:
    lease = claims.take(KEYS[:3])
    client.delete(name(KEYS[0]), name(KEYS[1]))
    lease.close()
    assert counts(claims) == (3, 0, 2)


def test_a_release_leaves_the_claims_of_another_lease_alone(claims: RedisClaims, client: "redis.Redis") -> None:
    lease = claims.take(KEYS[:1])
    client.set(name(KEYS[0]), "the token of another lease")
    lease.close()
    assert client.get(name(KEYS[0])) == b"the token of another lease"


def test_renewing_extends_the_claims_that_are_held(claims: RedisClaims, client: "redis.Redis") -> None:
    lease = claims.take(KEYS[:2])
    lease.release(KEYS[:1])
    client.pexpire(name(KEYS[1]), 100)
    claims.renew()
    assert client.pttl(name(KEYS[1])) > 1000
    assert client.keys() == [name(KEYS[1])], "a released claim does not come back"


def test_renewing_leaves_the_claims_of_another_lease_alone(claims: RedisClaims, client: "redis.Redis") -> None:
    claims.take(KEYS[:1])
    client.set(name(KEYS[0]), "the token of another lease", px=100)
    claims.renew()
    assert client.pttl(name(KEYS[0])) <= 100


def test_a_closed_lease_is_not_renewed(claims: RedisClaims, client: "redis.Redis") -> None:
    lease = claims.take(KEYS[:1])
    lease.close()
    client.set(name(KEYS[0]), lease.token, px=100)
    claims.renew()
    assert client.pttl(name(KEYS[0])) <= 100


def test_a_closed_lease_is_forgotten(claims: RedisClaims) -> None:
    claims.take(KEYS).close()  # loads the script; until then the traceback of its absence refers to the lease
    lease = claims.take(KEYS)
    lease.close()
    forgotten = weakref.ref(lease)
    del lease
    gc.collect()
    assert forgotten() is None


# Without Redis


def test_an_emptied_redis_gives_the_keys_to_the_next_caller(claims: RedisClaims, client: "redis.Redis") -> None:
    before = claims.take(KEYS[:2])
    client.flushall()
    after = claims.take(KEYS[:2])
    assert after.keys == set(KEYS[:2])
    before.close()
    assert claims.take(KEYS[:2]).keys == set(), "the new claims are still held"


def test_without_redis_every_key_is_granted_and_a_release_does_no_harm(
    claims: RedisClaims, server: fakeredis.FakeServer
) -> None:
    server.connected = False
    lease = claims.take(KEYS)
    assert lease.keys == set(KEYS)
    lease.close()
    assert lease.keys == set()
    assert counts(claims) == (4, 0, 0)


def test_a_release_that_redis_did_not_receive_leaves_the_claim_to_expire(
    claims: RedisClaims, client: "redis.Redis", server: fakeredis.FakeServer
) -> None:
    lease = claims.take(KEYS[:1])
    server.connected = False
    lease.close()
    server.connected = True
    assert client.pttl(name(KEYS[0])) > 0
    client.pexpire(name(KEYS[0]), 100)
    claims.renew()
    assert client.pttl(name(KEYS[0])) <= 100


def test_a_renewal_without_redis_raises(claims: RedisClaims, server: fakeredis.FakeServer) -> None:
    claims.take(KEYS[:1])
    server.connected = False
    with pytest.raises(redis.RedisError):
        claims.renew()
