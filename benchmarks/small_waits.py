"""What do small requests wait for? Parts 5 and 6 of benchmarks/bench_small.py."""

import asyncio
import json
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import uvloop

from benchmarks.corpora import sentences
from benchmarks.light_client import LightClient, check, connect, on_connections, percentile
from semel.cli.work.stack import throwaway_stack

PAUSE_S = 0.05
"""Between an answer and the next request in part 5; between one request and the next in part 6."""

SLOW = 'default_model = "fake"\n[models.fake]\nsource = "fake:?dim=384&text_ms=60"\n'
"""500 texts take this model 30 s."""

WAITING = 500

HITS = 200


@dataclass(frozen=True)
class Times:
    """Seconds until each request was answered.

    Attributes:
        sent: since it was sent.
        due: since it was due. One long wait delays the requests after it, and `sent` counts it only once.
    """

    sent: list[float]
    due: list[float]

    def describe(self) -> str:
        """The p95 and the longest, in milliseconds."""
        return (
            f"p95 {percentile(self.sent, 0.95):.1f} ms (since due {percentile(self.due, 0.95):.1f} ms), "
            f"max {max(self.sent) * 1000:.1f} ms"
        )


def embedding(text: str, model: str) -> bytes:
    """The body of a request with one text."""
    return json.dumps({"input": text, "model": model, "encoding_format": "base64"}).encode()


def requests_behind_jobs(texts: int) -> None:
    """Part 5: the latency of one cold text behind one bulk job with so many texts, and behind 500 jobs that share them.

    Each runs on fresh processes, after the same requests to the idle service.
    """
    for jobs in (1, 500):
        _behind(jobs, texts=texts)


def _behind(jobs: int, *, texts: int, requests: int = 100) -> None:
    """Measure behind so many jobs, and say so if they ended too early."""
    words = sentences(5000)
    with tempfile.TemporaryDirectory() as home, throwaway_stack(Path(home)) as url:
        _alone(url, [f"{words[i]} as a warm-up" for i in range(20)])
        idle = _alone(url, [f"{words[i]} on an idle service" for i in range(requests)])
        ids = _submit(url, [[f"{words[i % 5000]} {i}" for i in range(k, texts, jobs)] for k in range(jobs)])
        time.sleep(2)  # the worker has begun
        busy = _alone(url, [f"{words[i]} behind jobs" for i in range(requests)])
        still_open = _count_open(url, ids)
    print(
        f"5. one cold text behind {jobs} bulk job(s) of {texts} texts together, {still_open} still open at the end: "
        f"p50 {percentile(busy, 0.5):.1f} ms, p95 {percentile(busy, 0.95):.1f} ms; idle p50 "
        f"{percentile(idle, 0.5):.1f} ms, p95 {percentile(idle, 0.95):.1f} ms; ratio of the p50 "
        f"{percentile(busy, 0.5) / percentile(idle, 0.5):.1f}, of the p95 "
        f"{percentile(busy, 0.95) / percentile(idle, 0.95):.1f}"
    )
    if not still_open:
        print("5. the last figures are too good: the jobs ended before the requests; give more texts with --bulk-texts")


def _alone(url: str, texts: Sequence[str]) -> list[float]:
    """Seconds of each request, sent one after the other."""

    async def work(client: LightClient, _: int) -> list[float]:
        times = []
        for text in texts:
            body, started = embedding(text, "minilm"), perf_counter()
            check(*await client.post("/v1/embeddings", body))
            times.append(perf_counter() - started)
            await asyncio.sleep(PAUSE_S)
        return times

    return on_connections(url, 1, work)[1][0]


def _submit(url: str, jobs: Sequence[Sequence[str]]) -> list[str]:
    """Submit the jobs on 16 connections; returns their ids."""
    bodies = [json.dumps({"input": texts, "model": "minilm"}).encode() for texts in jobs]

    async def work(client: LightClient, number: int) -> list[str]:
        return [json.loads(check(*await client.post("/v1/jobs", body)))["id"] for body in bodies[number::16]]

    return [job_id for ids in on_connections(url, 16, work)[1] for job_id in ids]


def _count_open(url: str, ids: Sequence[str]) -> int:
    async def work(client: LightClient, _: int) -> int:
        states = [json.loads(check(*await client.get(f"/v1/jobs/{job_id}")))["status"] for job_id in ids]
        return sum(state != "completed" for state in states)

    return on_connections(url, 1, work)[1][0]


def hits_behind_misses() -> None:
    """Part 6: the latency of a hit and of /health/ready while 500 requests wait for a slow model."""
    with tempfile.TemporaryDirectory() as home, throwaway_stack(Path(home), config=SLOW) as url:
        uvloop.run(_hits_behind_misses(url))


async def _hits_behind_misses(url: str) -> None:
    hot = embedding("a text that was computed before", "fake")

    async def hit(client: LightClient) -> None:
        check(*await client.post("/v1/embeddings", hot))

    async def ask(client: LightClient) -> None:
        check(*await client.get("/health/ready"))

    await _paced(url, hit, lambda: True, most=1)
    idle, idle_ready = await _paced(url, hit, lambda: True), await _paced(url, ask, lambda: True)
    started = perf_counter()
    misses = asyncio.gather(*(_miss(url, number) for number in range(WAITING)))
    await asyncio.sleep(1)  # all are sent
    hits = asyncio.create_task(_paced(url, hit, lambda: not misses.done()))
    ready = await _paced(url, ask, lambda: not hits.done(), most=None)
    busy, answers = await hits, Counter(await misses)
    seconds = perf_counter() - started
    sent, due = (percentile(a, 0.95) / percentile(b, 0.95) for a, b in ((busy.sent, idle.sent), (busy.due, idle.due)))
    print(
        f"6. {WAITING} misses wait for a slow model ({seconds:.0f} s, statuses {dict(answers)}): {len(busy.sent)} hits "
        f"{busy.describe()}; idle {idle.describe()}; ratio of the p95 {sent:.1f} (since due {due:.1f})"
    )
    print(f"6. {len(ready.sent)} requests to /health/ready meanwhile: {ready.describe()}; idle {idle_ready.describe()}")


async def _paced(
    url: str, send: Callable[[LightClient], Awaitable[None]], go_on: Callable[[], bool], *, most: int | None = HITS
) -> Times:
    """Send requests every 50 ms on one connection while `go_on` is true, late ones as soon as the last is answered."""
    client, times, due = await connect(url), Times([], []), perf_counter()
    while go_on() and (most is None or len(times.sent) < most):
        await asyncio.sleep(max(0.0, due - perf_counter()))
        started = perf_counter()
        await send(client)
        times.sent.append(perf_counter() - started)
        times.due.append(perf_counter() - due)
        due += PAUSE_S
    client.close()
    return times


async def _miss(url: str, number: int) -> int:
    """Send one cold text on its own connection; returns the status."""
    client = await connect(url)
    status, _ = await client.post("/v1/embeddings", embedding(f"miss {number}", "fake"))
    client.close()
    return status
