"""Claims: leases that record who is computing a key now.

A claim is a hint with a clock, never the truth. A lost claim costs a second computation, and the cache keeps the first
vector that arrives. So Redis may be emptied, or be unavailable, at any moment.
"""

import threading
import uuid
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import redis
from typing_extensions import override

from semel.log import get_log

log = get_log("claims")

_PREFIX = b"semel:claim:"

_DEAD = "semel:dead:"

# KEYS: claims; ARGV: token, ttl in ms, prefix of the marks of the dead. Returns the places of the keys that were won:
# free ones, and those of a process that is certainly dead. A token begins with the name of its process.
_TAKE = (
    "local won, dead = {}, {} for i, k in ipairs(KEYS) do "
    "local free = redis.call('SET', k, ARGV[1], 'NX', 'PX', ARGV[2]) "
    "if not free then local owner = string.match(redis.call('GET', k), '^(.*)/') "
    "if owner then if dead[owner] == nil then dead[owner] = redis.call('EXISTS', ARGV[3] .. owner) == 1 end "
    "free = dead[owner] and redis.call('SET', k, ARGV[1], 'PX', ARGV[2]) end end "
    "if free then won[#won + 1] = i end end return won"
)

# KEYS: claims; ARGV: token [, ttl in ms]. Only the owner's claims are touched.
_RELEASE = (
    "local n = 0 for _, k in ipairs(KEYS) do "
    "if redis.call('GET', k) == ARGV[1] then n = n + redis.call('DEL', k) end end return n"
)
_RENEW = "for _, k in ipairs(KEYS) do if redis.call('GET', k) == ARGV[1] then redis.call('PEXPIRE', k, ARGV[2]) end end"


class Lease:
    """The claims that one call holds: `release` keys as they are done, then `close` releases the rest.

    Attributes:
        token: marks the claims of this lease in Redis.
        keys: those that are still held.
    """

    def __init__(
        self, keys: Sequence[bytes], release: Callable[["Lease", Sequence[bytes]], None], *, owner: str = ""
    ) -> None:
        self.token = f"{owner}/{uuid.uuid4().hex}"
        self.keys = set(keys)
        self._release = release

    def release(self, keys: Sequence[bytes]) -> None:
        """Release these keys: other callers may claim them."""
        self._release(self, keys)
        self.keys.difference_update(keys)

    def close(self) -> None:
        """Release every key that is still held."""
        self.release(list(self.keys))


class Claims(Protocol):
    """Which caller computes which key."""

    def take(self, keys: Sequence[bytes]) -> Lease:
        """Claim those of `keys` that no other caller holds. The lease has exactly these, and may be empty."""

    def renew(self) -> None:
        """Extend every claim that this process holds."""


class LocalClaims(Claims):
    """Claims between the threads of one process, for `semel embed --local`."""

    def __init__(self) -> None:
        self._held: set[bytes] = set()
        self._lock = threading.Lock()

    @override
    def take(self, keys: Sequence[bytes]) -> Lease:
        with self._lock:
            free = [key for key in keys if key not in self._held]
            self._held.update(free)
        return Lease(free, self._release)

    def _release(self, _lease: Lease, keys: Sequence[bytes]) -> None:
        with self._lock:
            self._held.difference_update(keys)

    @override
    def renew(self) -> None:
        """Do nothing: these claims end with the process."""


class RedisClaims(Claims):
    """Claims between processes: `SET NX PX` with a token for each lease.

    Args:
        client: connected with `decode_responses=False`.
        ttl_s: how long the claims of a killed process block their keys, unless others `bury` it. Call `renew` more
            often than that.
        owner: the name of this process, which no other one has or had.

    Attributes:
        taken: keys claimed since the start.
        held: keys that another lease held when they were to be claimed.
        expired: keys whose claim was gone before it was released.
    """

    def __init__(self, client: "redis.Redis", *, ttl_s: float, owner: str) -> None:
        self._client = client
        self._owner = owner
        self._ttl_ms = int(ttl_s * 1000)
        self.taken, self.held, self.expired = 0, 0, 0
        self._active: set[Lease] = set()
        self._lock = threading.Lock()
        self._take_script = client.register_script(_TAKE)
        self._release_script = client.register_script(_RELEASE)
        self._renew_script = client.register_script(_RENEW)

    @override
    def take(self, keys: Sequence[bytes]) -> Lease:
        lease = Lease([], self._release, owner=self._owner)
        try:
            won = self._take_script(keys=[_PREFIX + k for k in keys], args=[lease.token, self._ttl_ms, _DEAD])
            lease.keys.update(keys[place - 1] for place in won)
        except redis.RedisError as error:
            # Work goes on: without claims a text may be computed twice, but no vector is wrong or lost.
            log.warning("claims unavailable; computing without them", reason=str(error))
            lease.keys.update(keys)
        with self._lock:
            self._active.add(lease)
            self.taken += len(lease.keys)
            self.held += len(keys) - len(lease.keys)
        return lease

    def bury(self, owners: Iterable[str]) -> None:
        """Let others take the claims of processes that are certainly dead. Raises redis.RedisError."""
        for owner in owners:
            self._client.set(_DEAD + owner, "", px=self._ttl_ms)

    def _release(self, lease: Lease, keys: Sequence[bytes]) -> None:
        if keys:
            try:
                ours = int(self._release_script(keys=[_PREFIX + k for k in keys], args=[lease.token]))
                self.expired += len(keys) - ours
            except redis.RedisError as error:
                log.warning("claims not released; they expire by themselves", reason=str(error))
        if lease.keys.issubset(keys):
            with self._lock:
                self._active.discard(lease)

    @override
    def renew(self) -> None:
        """Extend every claim that this process holds. Raises redis.RedisError."""
        with self._lock:
            leases = list(self._active)
        for lease in leases:
            keys = [_PREFIX + k for k in tuple(lease.keys)]
            if keys:
                self._renew_script(keys=keys, args=[lease.token, self._ttl_ms])
