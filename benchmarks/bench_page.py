"""What do five viewers of the page cost the server? CPU time of the API with and without them, idle and at work.

A viewer looks at the list of jobs: it keeps the page's stream of events open and requests the list every ten seconds.
"""

import argparse
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil

from semel.cli.work.stack import throwaway_stack
from semel.client import Client

LOOK_S = 10.0
"""Seconds between two requests for the list, as in page/jobs.js."""

CONFIG = 'default_model = "fake"\n[models.fake]\nsource = "fake:?dim=384&text_ms=1"\n'


def main() -> None:
    """Measure an idle API, then one that works on five jobs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--viewers", type=int, default=5)
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as home,
        throwaway_stack(Path(home), config=CONFIG) as url,
        Client(url) as client,
    ):
        api = next(p for p in psutil.Process().children(recursive=True) if "serve" in p.cmdline())
        time.sleep(5)
        report("at rest", api, url, options.viewers, options.seconds)
        jobs = [client.submit([f"job {n}, text {i}" for i in range(100_000)], model="fake") for n in range(5)]
        time.sleep(5)
        report("at work on five jobs", api, url, options.viewers, options.seconds)
        for job in jobs:
            client.cancel(job.id)


def report(when: str, api: psutil.Process, url: str, viewers: int, seconds: float) -> None:
    """Print the shares of a core without and with viewers, and their difference."""
    alone = cpu_share(api, seconds)
    with watching(url, viewers):
        time.sleep(2)
        watched = cpu_share(api, seconds)
    print(
        f"{when}: the API takes {alone:.1%} of a core alone, {watched:.1%} with {viewers} viewers: "
        f"they cost {watched - alone:.1%}"
    )


def cpu_share(process: psutil.Process, seconds: float) -> float:
    """CPU time of a process for each second, over some seconds."""
    before, started = process.cpu_times(), time.monotonic()
    time.sleep(seconds)
    after, passed = process.cpu_times(), time.monotonic() - started
    return (after.user + after.system - before.user - before.system) / passed


@contextmanager
def watching(url: str, viewers: int) -> Iterator[None]:
    """Keep some viewers at the page while the block runs."""
    stop = threading.Event()

    def listen() -> None:
        with httpx.stream("GET", f"{url}/v1/events", timeout=30) as answer:
            for _ in answer.iter_bytes():
                if stop.is_set():
                    return

    def look() -> None:
        with httpx.Client() as http:
            while not stop.wait(LOOK_S):
                http.get(f"{url}/v1/jobs?limit=50").raise_for_status()

    threads = [threading.Thread(target=target) for target in (listen, look) for _ in range(viewers)]
    for thread in threads:
        thread.start()
    yield
    stop.set()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
