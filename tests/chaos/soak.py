"""Runs a mixed load for a while and shows what grows: memory, descriptors, threads, rows and keys."""

import argparse
import random
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import redis
from sqlalchemy import text

from semel.client import Client
from semel.db import Database
from semel.errors import SemelError
from tests.support.processes import Processes

_COUNTED = ("jobs", "chunks", "vectors")


def main() -> None:
    """Print a line each minute, and the change from the first half to the end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        semel = Processes(
            Path(folder), model="text_ms=1", settings={"SEMEL_JOB_RETENTION_S": "300", "SEMEL_LOG_LEVEL": "warning"}
        )
        stopping = threading.Event()
        try:
            semel.start_all()
            threads = [threading.Thread(target=load, args=(semel.url, stopping)) for load in (_requests, _jobs)]
            for thread in threads:
                thread.start()
            _watch(semel, options.minutes)
        finally:
            stopping.set()
            semel.close()


def _watch(semel: Processes, minutes: float) -> None:
    db = Database(f"sqlite:///{semel.folder / 'home' / 'semel.db'}")
    client = redis.Redis(port=semel.redis_port)
    lines: list[dict[str, float]] = []
    for minute in range(int(minutes) + 1):
        seen: dict[str, float] = {}
        for name in ("api", "worker"):
            process = psutil.Process(semel.pid(name))
            seen[f"{name} MB"] = process.memory_info().rss / 1e6
            seen[f"{name} files"] = process.num_fds()
            seen[f"{name} threads"] = process.num_threads()
        seen["redis keys"] = client.dbsize()
        with db.read() as conn:
            for table in _COUNTED:
                seen[table] = conn.execute(text(f"SELECT count(*) FROM {table}")).scalar_one()
        lines.append(seen)
        print(f"{minute:>4} min  " + "  ".join(f"{name} {value:,.0f}" for name, value in seen.items()), flush=True)
        if minute < int(minutes):
            time.sleep(60)
    half = lines[len(lines) // 2]
    growth = ", ".join(f"{name} {lines[-1][name] - half[name]:+,.0f}" for name in half)
    print(f"from the middle to the end: {growth}")


def _requests(url: str, stopping: threading.Event) -> None:
    with Client(url) as client:
        number = 0
        while not stopping.wait(0.15):
            number += 1
            _try(lambda n=number: client.embed([f"asked {n}"], model="fake"))  # type: ignore[misc]


def _jobs(url: str, stopping: threading.Event) -> None:
    rng = random.Random(1)
    with Client(url) as client:
        while not stopping.wait(5):
            start = rng.randrange(1_000_000)
            texts = [f"row {start + i} of a job" for i in range(1000)]
            _try(lambda t=texts: client.submit(t, model="fake"))  # type: ignore[misc]


def _try(call: Callable[[], object]) -> None:
    try:
        call()
    except SemelError as error:
        print(f"a call failed: {error}", flush=True)


if __name__ == "__main__":
    main()
