"""The faults of a campaign. Each hurts one part of a running semel for a while, and heals it."""

import contextlib
import random
import signal
import socket
import sqlite3
import struct
import time
from collections.abc import Callable
from typing import TypeAlias

import psycopg
import redis

from semel.errors import SemelError
from tests.support.processes import Processes

WORKERS = ("worker", "second")

APIS = ("api", "other api")


def kill_worker(semel: Processes, rng: random.Random) -> None:
    """SIGKILL a worker; a supervisor starts it again after a second."""
    name = rng.choice(WORKERS)
    semel.stop(name, signal.SIGKILL)
    time.sleep(1)
    semel.start_worker(name)


def term_worker(semel: Processes, rng: random.Random) -> None:
    """SIGTERM a worker, as a deployment does, and start it again."""
    name = rng.choice(WORKERS)
    semel.stop(name)
    semel.start_worker(name)


def stall_worker(semel: Processes, rng: random.Random) -> None:
    """A worker stands still for some seconds."""
    _stall(semel.pid(rng.choice(WORKERS)), rng.uniform(3, 15))


def kill_api(semel: Processes, rng: random.Random) -> None:
    """SIGKILL an API, and start it again."""
    name = rng.choice(APIS)
    semel.stop(name, signal.SIGKILL)
    semel.start_api(name)


def stall_api(semel: Processes, rng: random.Random) -> None:
    """An API stands still for some seconds."""
    _stall(semel.pid(rng.choice(APIS)), rng.uniform(1, 6))


def kill_redis(semel: Processes, rng: random.Random) -> None:
    """SIGKILL Redis, which has stored nothing, and start it again after a while."""
    semel.stop("redis", signal.SIGKILL)
    time.sleep(rng.uniform(0.2, 5))
    semel.start_redis()


def stall_redis(semel: Processes, rng: random.Random) -> None:
    """Redis stands still for some seconds."""
    _stall(semel.pid("redis"), rng.uniform(2, 13))


def flush_redis(semel: Processes, rng: random.Random) -> None:
    """Redis is emptied a few times."""
    client = redis.Redis(port=semel.redis_port)
    for _ in range(rng.randint(1, 3)):
        client.flushall()
        time.sleep(rng.uniform(0.1, 1))
    client.close()


def lock_database(semel: Processes, rng: random.Random) -> None:
    """Somebody else holds the database's lock for some seconds."""
    seconds = rng.uniform(2, 10)
    if url := semel.environment.get("SEMEL_DATABASE_URL"):
        with psycopg.connect(url) as conn:
            conn.execute("LOCK TABLE chunks IN ACCESS EXCLUSIVE MODE")
            time.sleep(seconds)
        return
    with contextlib.closing(sqlite3.connect(semel.folder / "home" / "semel.db", timeout=30)) as database:
        database.isolation_level = None
        database.execute("BEGIN IMMEDIATE")
        time.sleep(seconds)
        database.execute("ROLLBACK")


def end_sessions(semel: Processes, _rng: random.Random) -> None:
    """PostgreSQL ends every session of semel; nothing happens on SQLite."""
    if url := semel.environment.get("SEMEL_DATABASE_URL"):
        with psycopg.connect(url, autocommit=True) as conn:
            conn.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )


def cancel_and_retry(semel: Processes, rng: random.Random) -> None:
    """A user cancels a job and, when it has stopped, thinks better of it."""
    with contextlib.suppress(SemelError):
        jobs = [job for job in semel.client.jobs() if not job.status.ended]
        if jobs:
            job = rng.choice(jobs)
            semel.client.cancel(job.id)
            semel.client.wait(job.id, timeout_s=30)
            semel.client.retry(job.id)


def vanish(semel: Processes, rng: random.Random) -> None:
    """Clients go away in the middle of an upload, of a small request, and of a download."""
    job = b"POST /v1/jobs?model=fake HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/x-ndjson\r\n"
    small = b"POST /v1/embeddings HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
    for i in range(rng.randint(3, 12)):
        text = f"nobody waits for {rng.random()}"
        lines = f'{{"text": "{text}"}}\n'.encode() * 50
        body = f'{{"model": "fake", "input": ["{text}"]}}'.encode()
        sent = [
            job + b"content-length: 1000000\r\n\r\n" + lines,
            small + f"content-length: {len(body)}\r\n\r\n".encode() + body,
            small + b"content-length: 500\r\n\r\n" + body,
            b"GET /v1/events HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n",
        ][i % 4]
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", semel.port), timeout=5) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # reset, as by a lost host
            client.sendall(sent)
            time.sleep(rng.uniform(0, 0.1))


def prune(semel: Processes, _rng: random.Random) -> None:
    """Somebody deletes every vector that no job needs."""
    semel.semel("cache", "prune", "--max-bytes", "0B", ok=False)


def _stall(pid: int, seconds: float) -> None:
    import os

    with contextlib.suppress(ProcessLookupError):  # a text may have killed it just before
        os.kill(pid, signal.SIGSTOP)
        try:
            time.sleep(seconds)
        finally:
            os.kill(pid, signal.SIGCONT)


Fault: TypeAlias = Callable[[Processes, random.Random], None]

FAULTS: dict[str, Fault] = {
    fault.__name__: fault
    for fault in (
        kill_worker,
        term_worker,
        stall_worker,
        kill_api,
        stall_api,
        kill_redis,
        stall_redis,
        flush_redis,
        lock_database,
        end_sessions,
        cancel_and_retry,
        prune,
        vanish,
    )
}
