"""The faults of a campaign. Each hurts one part of a running semel for a while, and heals it."""

import contextlib
import os
import random
import signal
import socket
import sqlite3
import struct
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import psutil
import psycopg
import redis

from semel.errors import ConflictError, SemelError
from semel.values.job import JobStatus
from tests.chaos.system import NOTICED_S, System
from tests.chaos.work import insist

_SKEWED = Path(__file__).with_name("skewed")

_WRITTEN = ("jobs", "chunks", "vectors")
"""The tables that work is written to."""


def kill_worker(semel: System, rng: random.Random) -> None:
    """SIGKILL a worker; a supervisor starts it again after a second."""
    name = rng.choice(semel.workers)
    semel.stop(name, signal.SIGKILL)
    time.sleep(1)
    semel.start_worker(name)


def term_worker(semel: System, rng: random.Random) -> None:
    """SIGTERM a worker, as a deployment does, and start it again."""
    name = rng.choice(semel.workers)
    semel.restart(name)


def stall_worker(semel: System, rng: random.Random) -> None:
    """A worker stands still for some seconds."""
    _stall(semel.pid(rng.choice(semel.workers)), rng.uniform(3, 15))


def kill_api(semel: System, rng: random.Random) -> None:
    """SIGKILL an API, and start it again."""
    name = rng.choice(semel.apis)
    semel.stop(name, signal.SIGKILL)
    semel.start_api(name)


def stall_api(semel: System, rng: random.Random) -> None:
    """An API stands still for some seconds."""
    _stall(semel.pid(rng.choice(semel.apis)), rng.uniform(1, 6))


def kill_redis(semel: System, rng: random.Random) -> None:
    """SIGKILL Redis, which has stored nothing, and start it again after a while."""
    semel.stop("redis", signal.SIGKILL)
    time.sleep(rng.uniform(0.2, 5))
    semel.start_redis()


def stall_redis(semel: System, rng: random.Random) -> None:
    """Redis stands still for some seconds."""
    _stall(semel.pid("redis"), rng.uniform(2, 13))


def flush_redis(semel: System, rng: random.Random) -> None:
    """Redis is emptied a few times."""
    client = redis.Redis(port=semel.redis_port)
    for _ in range(rng.randint(1, 3)):
        client.flushall()
        time.sleep(rng.uniform(0.1, 1))
    client.close()


def lock_database(semel: System, rng: random.Random) -> None:
    """Somebody else holds the database's lock for some seconds."""
    seconds = rng.uniform(2, 10)
    if semel.database_url:
        with psycopg.connect(semel.database_url) as conn:
            conn.execute("LOCK TABLE chunks IN ACCESS EXCLUSIVE MODE")
            time.sleep(seconds)
        return
    with contextlib.closing(sqlite3.connect(semel.folder / "home" / "semel.db", timeout=30)) as database:
        database.isolation_level = None
        database.execute("BEGIN IMMEDIATE")
        time.sleep(seconds)
        database.execute("ROLLBACK")


def lock_rows(semel: System, rng: random.Random) -> None:
    """Somebody else changes every job and does not commit for some seconds; nothing happens on SQLite."""
    if semel.database_url:
        with psycopg.connect(semel.database_url) as conn:
            conn.execute("SELECT id FROM jobs FOR UPDATE")
            time.sleep(rng.uniform(2, 10))


def fill_disk(semel: System, rng: random.Random) -> None:
    """No process of semel can write to a file for some seconds, and PostgreSQL has no room for its tables.

    The limit of a process gives the same errors as a full quota does: a write fails, what is there can be read.
    """
    parts = [psutil.Process(semel.pid(part)) for part in (*semel.apis, *semel.workers)]
    with contextlib.ExitStack() as stack:
        if semel.database_url:
            stack.enter_context(_no_room(semel.database_url))
        for process in parts:
            stack.callback(_limit_files, process, psutil.RLIM_INFINITY)
            _limit_files(process, 0)
        time.sleep(rng.uniform(2, 8))


def _limit_files(process: psutil.Process, size: int) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):  # a text may have killed it
        process.rlimit(psutil.RLIMIT_FSIZE, (size, psutil.RLIM_INFINITY))


@contextlib.contextmanager
def _no_room(url: str) -> Iterator[None]:
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute(
            "CREATE OR REPLACE FUNCTION no_room() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION "
            "'could not extend file \"base/1\": No space left on device' USING ERRCODE = '53100'; END $$"
        )
        try:
            for table in _WRITTEN:
                conn.execute(f"CREATE TRIGGER no_room BEFORE INSERT OR UPDATE ON {table} EXECUTE FUNCTION no_room()")
            yield
        finally:
            for table in _WRITTEN:
                conn.execute(f"DROP TRIGGER IF EXISTS no_room ON {table}")


def skew_clock(semel: System, rng: random.Random) -> None:
    """A part runs on a host whose clock is wrong for a while; nothing on SQLite, whose parts are on one host."""
    if not semel.database_url:
        return
    part = rng.choice((*semel.apis, *semel.workers))
    right = semel.own[part]
    skew_s = rng.choice((-3600, -30, 30, 31 * 86400))
    semel.own[part] = {**right, "SKEW_S": str(skew_s), "PYTHONPATH": f"{_SKEWED}:{os.environ.get('PYTHONPATH', '')}"}
    try:
        semel.restart(part)
        time.sleep(rng.uniform(3, 8))
    finally:
        semel.own[part] = right
    semel.restart(part)


def slow_network(semel: System, rng: random.Random) -> None:
    """Everything that the parts send each other takes longer for some seconds."""
    links = [link for of_part in semel.links.values() for link in of_part.values()]
    for link in links:
        link.delay(rng.uniform(0.002, 0.05))
    time.sleep(rng.uniform(3, 8))
    for link in links:
        link.delay(0)


def silent_network(semel: System, rng: random.Random) -> None:
    """Nothing passes between a part and Redis or the database for some seconds; then all of it arrives."""
    link = semel.links[rng.choice(list(semel.links))][_service(semel, rng)]
    link.hold()
    try:
        time.sleep(rng.uniform(2, 12))
    finally:
        link.release()


def lost_connections(semel: System, rng: random.Random) -> None:
    """A part's connections to Redis or the database go silent for ever; new ones work.

    Ends when the part must have noticed.
    """
    part, service = rng.choice(list(semel.links)), _service(semel, rng)
    semel.lose_connections(part, service)
    time.sleep(NOTICED_S[service])


def reset_connections(semel: System, rng: random.Random) -> None:
    """All connections of a part to Redis or the database are reset, a few times."""
    link = semel.links[rng.choice(list(semel.links))][_service(semel, rng)]
    for _ in range(rng.randint(1, 4)):
        link.cut()
        time.sleep(rng.uniform(0.1, 1))


def _service(semel: System, rng: random.Random) -> str:
    return rng.choice(list(semel.links["api"]))


def end_sessions(semel: System, _rng: random.Random) -> None:
    """PostgreSQL ends every session of semel; nothing happens on SQLite."""
    if semel.database_url:
        with psycopg.connect(semel.database_url, autocommit=True) as conn:
            conn.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )


def cancel_and_retry(semel: System, rng: random.Random) -> None:
    """A user cancels a job and, when it has stopped, thinks better of it."""
    jobs = [job for job in insist(semel.client.jobs) if job.metadata.get("campaign") and not job.status.ended]
    if not jobs:
        return
    job = rng.choice(jobs)
    try:
        semel.client.cancel(job.id)
    except ConflictError:  # it has ended meanwhile
        return
    except SemelError as error:
        print(f"cancel: {error!r}", file=sys.stderr)
    if insist(lambda: semel.client.wait(job.id, timeout_s=30)).status == JobStatus.CANCELLED:
        insist(lambda: semel.client.retry(job.id))


def vanish(semel: System, rng: random.Random) -> None:
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


def prune(semel: System, _rng: random.Random) -> None:
    """Somebody deletes every vector that no job needs."""
    semel.semel("cache", "prune", "--max-bytes", "0B", ok=False)


def _stall(pid: int, seconds: float) -> None:
    with contextlib.suppress(ProcessLookupError):  # a text may have killed it just before
        os.kill(pid, signal.SIGSTOP)
        try:
            time.sleep(seconds)
        finally:
            os.kill(pid, signal.SIGCONT)


Fault: TypeAlias = Callable[[System, random.Random], None]

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
        lock_rows,
        fill_disk,
        skew_clock,
        slow_network,
        silent_network,
        lost_connections,
        reset_connections,
        end_sessions,
        cancel_and_retry,
        prune,
        vanish,
    )
}
