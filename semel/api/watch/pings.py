"""The checks behind /health/ready: each raises UnavailableError with what does not hold."""

from collections.abc import Sequence

import redis

from semel.errors import UnavailableError
from semel.redis_client import unreachable
from semel.tasks.fleet.roster import Roster
from semel.tasks.jobs.sweep import Sweeper
from semel.values.device import device_kind

_PING_S = 60
"""How long the key of a ping lasts, in seconds."""

_SILENT_S = 20.0
"""Workers ask their queues every second; after this long without an answer, none of them takes work."""

_SWEPT_S = 60.0
"""Sweeps run every two seconds; without one for this long, lost work stays lost."""


def ping_redis(client: "redis.Redis") -> None:
    """Check that Redis answers, and that it takes writes: a full one and a replica do not. Raises UnavailableError."""
    try:
        client.set("semel:ping", 1, ex=_PING_S)
    except redis.RedisError as error:
        raise unreachable(error) from error


def ping_workers(roster: Roster, required: Sequence[str]) -> None:
    """Check that a worker is ready to compute, and that every required device has a live worker.

    Raises UnavailableError.
    """
    live = roster.live()
    states = {worker.state for worker in live}
    if not states:
        raise UnavailableError("no worker is alive; start one: semel worker --device cpu")
    if "ready" not in states:
        raise UnavailableError("the workers are still loading their model")
    silent_s = min(worker.polled_s for worker in live if worker.state == "ready")
    if silent_s > _SILENT_S:
        raise UnavailableError(
            f"no worker has had an answer from its queues for {silent_s:.0f} s: their connections to Redis are "
            "stuck, and are opened again within a minute"
        )
    present = {device_kind(worker.device) for worker in live}
    if missing := [kind for kind in required if kind not in present]:
        kinds = ", ".join(missing)
        raise UnavailableError(f"no worker is alive for {kinds}; start one: semel worker --device {missing[0]}")


def ping_sweeps(sweeper: Sweeper) -> None:
    """Raises UnavailableError unless a sweep of this process has succeeded lately."""
    if sweeper.age_s > _SWEPT_S:
        raise UnavailableError(
            f"no sweep has succeeded for {sweeper.age_s:.0f} s, so lost work is not sent again; the log of "
            "this process has the reason"
        )
