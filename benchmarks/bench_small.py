"""Does small work cost as little as big work? Jobs and requests of one text, each next to a peer in the same run.

1. Jobs of one text, next to the service that a user writes by hand (benchmarks/peer_small.py). 16 producers submit
   them all, then fetch each result by asking for it until it is there. A job of semel is durable in its database
   before the 2xx; the peer's is a message in a Redis that stores nothing on disk, and it keeps no row.
2. Requests of one cold text on 32 connections: next to a route that computes nothing, and next to one bulk job.
3. One cold text alone, next to the encoder alone; one hot text.
4. Hits on 16 connections, next to a bare route (benchmarks/bench_hits.py).
5. Requests of one cold text behind one bulk job and behind 500 of them, next to an idle service.
6. Hits and /health/ready while 500 requests wait for a slow model, next to an idle service.

All servers and the client run on this machine.
"""

import argparse
import asyncio
import json
import os
import statistics
import tempfile
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psycopg

from benchmarks import bench_hits
from benchmarks.bench_service import bare_latency, job, latency
from benchmarks.corpora import sentences
from benchmarks.light_client import LightClient, check, on_connections, post_rate
from benchmarks.peer_small import hand_written_service
from benchmarks.small_waits import embedding, hits_behind_misses, requests_behind_jobs
from semel.cli.work.stack import throwaway_stack
from semel.client import Client

PRODUCERS = 16

DIM = 384

FAKE = f'default_model = "fake"\n[models.fake]\nsource = "fake:?dim={DIM}"\n'

POLL_S = 0.005
"""Between two requests for the result of one job."""

LOCAL_POSTGRES = "postgresql://postgres@127.0.0.1:5432/postgres"


@dataclass(frozen=True)
class Side:
    """A service that takes jobs of one text.

    Attributes:
        start: runs it in a folder; yields its URL.
        body: the body of a submission.
        path, result: where jobs are submitted, and where a result is, with `{}` for the id.
        waiting: the status of a result that is not there yet.
    """

    start: Callable[[Path], AbstractContextManager[str]]
    body: Callable[[str], object]
    path: str
    result: str
    waiting: int


@dataclass(frozen=True)
class Rates:
    """Jobs per second: submitted, and from the first submission to the last result."""

    submitted: float
    completed: float


def main() -> None:
    """Run the chosen parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default="1,2,3,4,5,6", help="the parts to run, separated by commas")
    parser.add_argument("--jobs", type=int, default=1500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=4000)
    parser.add_argument("--sentences", type=int, default=2000)
    parser.add_argument("--bulk-texts", type=int, default=60_000, help="texts of the bulk jobs of part 5")
    parser.add_argument("--postgres", default=os.environ.get("SEMEL_TEST_POSTGRES_URL", ""))
    options = parser.parse_args()
    parts = {
        1: lambda: small_jobs(options.jobs, options.rounds, options.postgres or _local_postgres()),
        2: lambda: cold_requests(options.requests, options.sentences),
        3: one_text_alone,
        4: lambda: hits(options.requests, options.rounds),
        5: lambda: requests_behind_jobs(options.bulk_texts),
        6: hits_behind_misses,
    }
    for number in options.parts.split(","):
        parts[int(number)]()


def small_jobs(count: int, rounds: int, postgres: str) -> None:
    """Part 1. The sides take turns, each round with fresh processes and an empty database."""
    sides = {"by hand": Side(hand_written_service, lambda text: {"text": text}, "/jobs", "/jobs/{}", 202)}
    sides["semel, SQLite"] = _semel(lambda home: throwaway_stack(home, config=FAKE))
    if postgres:
        sides["semel, PostgreSQL"] = _semel(lambda home: _stack_on(postgres, home))
    found: dict[str, list[Rates]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            with tempfile.TemporaryDirectory() as home, side.start(Path(home)) as url:
                submit_and_fetch(side, url, [f"warm-up text {i}" for i in range(5 * PRODUCERS)])
                found[name].append(submit_and_fetch(side, url, [f"text {i} of a small job" for i in range(count)]))
    for what in ("submitted", "completed"):
        medians = {name: statistics.median(getattr(r, what) for r in rates) for name, rates in found.items()}
        for name, rates in found.items():
            each = ", ".join(f"{getattr(r, what):,.0f}" for r in rates)
            ratio = medians[name] / medians["by hand"]
            print(f"1. jobs of one text, {what}: {name} {medians[name]:,.0f}/s (rounds: {each}), ratio {ratio:.2f}")


def _semel(start: Callable[[Path], AbstractContextManager[str]]) -> Side:
    path = "/v1/jobs/{}/results?format=ndjson"
    return Side(start, lambda text: {"input": [text], "model": "fake"}, "/v1/jobs", path, 409)


def submit_and_fetch(side: Side, url: str, texts: Sequence[str]) -> Rates:
    """Submit a job per text, then fetch all results.

    The producers open new connections before they fetch: the first to finish could wait for the last until uvicorn
    closes its idle connection.
    """
    bodies = [json.dumps(side.body(text)).encode() for text in texts]

    async def submit(client: LightClient, number: int) -> list[str]:
        return [json.loads(check(*await client.post(side.path, body)))["id"] for body in bodies[number::PRODUCERS]]

    submitting_s, ids = on_connections(url, PRODUCERS, submit)

    async def fetch(client: LightClient, number: int) -> None:
        for job_id in ids[number]:
            await _fetch(client, side, job_id)

    fetching_s, _ = on_connections(url, PRODUCERS, fetch)
    return Rates(len(texts) / submitting_s, len(texts) / (submitting_s + fetching_s))


async def _fetch(client: LightClient, side: Side, job_id: str) -> None:
    path = side.result.format(job_id)
    while (answer := await client.get(path))[0] == side.waiting:  # noqa: ASYNC110  # the server has the event
        await asyncio.sleep(POLL_S)
    content = check(*answer)
    if content.count(b",") < DIM - 1:
        raise SystemExit(f"the result of a job has no vector: {content[:300]!r}")


@contextmanager
def _stack_on(postgres: str, home: Path) -> Iterator[str]:
    """Run semel on a new PostgreSQL database, which is dropped at the end."""
    name = f"semel_bench_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(postgres, autocommit=True, connect_timeout=3) as admin:
        admin.execute(f"CREATE DATABASE {name}")
        try:
            with throwaway_stack(home, config=FAKE, database_url=postgres.rpartition("/")[0] + f"/{name}") as url:
                yield url
        finally:
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


def _local_postgres() -> str:
    try:
        psycopg.connect(LOCAL_POSTGRES, connect_timeout=3).close()
    except psycopg.OperationalError:
        print(f"1. PostgreSQL does not answer at {LOCAL_POSTGRES}; give its URL with --postgres")
        return ""
    return LOCAL_POSTGRES


def cold_requests(requests: int, real: int) -> None:
    """Part 2: the fake model, then minilm."""
    with ExitStack() as running:
        home = Path(running.enter_context(tempfile.TemporaryDirectory()))
        url = running.enter_context(throwaway_stack(home, config=FAKE))
        _rate(url, [f"warm-up text {i}" for i in range(320)], "fake")
        ours = _rate(url, [f"cold text {i}" for i in range(requests)], "fake")
        sample = home / "answer.json"
        sample.write_bytes(
            b'{"object":"list","data":[{"object":"embedding","index":0,"embedding":"%b"}]}' % (b"A" * 2048)
        )
        with bench_hits.peer(sample) as bare:
            theirs = _rate(bare, [f"cold text {i}" for i in range(requests)], "fake")
    print(
        f"2. cold requests of one text, fake model, 32 connections: {ours:,.0f} requests/s; a bare route "
        f"{theirs:,.0f}/s; ratio {ours / theirs:.2f}"
    )
    texts = sentences(2 * real)
    with tempfile.TemporaryDirectory() as folder, throwaway_stack(Path(folder)) as url, Client(url) as client:
        _rate(url, [f"{text} as a warm-up" for text in texts[:64]], "minilm")
        ours = _rate(url, texts[:real], "minilm")
        bulk = real / job(client, texts[real:])
    print(
        f"2. cold requests of one text, minilm, 32 connections: {ours:,.0f} requests/s; one bulk job of as many "
        f"{bulk:,.0f} texts/s; ratio {ours / bulk:.2f}"
    )


def _rate(url: str, texts: Sequence[str], model: str) -> float:
    return post_rate(url, "/v1/embeddings", [embedding(text, model) for text in texts], connections=32)


def one_text_alone(requests: int = 300) -> None:
    """Part 3."""
    texts = sentences(requests)
    with tempfile.TemporaryDirectory() as home, throwaway_stack(Path(home)) as url:
        hot = latency(url, ["a hot text"] * requests)
        cold = latency(url, texts)
    bare = bare_latency(texts, "cpu", every_s=cold / 1000)
    print(
        f"3. one cold text alone, minilm: p50 {cold:.2f} ms; the encoder alone at the same pace {bare:.2f} ms, "
        f"difference {cold - bare:.2f} ms, ratio {cold / bare:.2f}; one hot text {hot:.2f} ms"
    )


def hits(requests: int, rounds: int) -> None:
    """Part 4."""
    with tempfile.TemporaryDirectory() as home, throwaway_stack(Path(home)) as url:
        answers = [
            httpx.post(f"{url}/v1/embeddings", json=bench_hits.body(text)).raise_for_status()
            for text in bench_hits.TEXTS
        ]
        sample = Path(home) / "answer.json"
        sample.write_bytes(answers[0].content)
        with bench_hits.peer(sample) as bare:
            for _ in range(rounds):
                ours, theirs = (asyncio.run(bench_hits.rate(side, requests, 16)) for side in (url, bare))
                print(f"4. hits: {ours:,.0f} requests/s; a bare route {theirs:,.0f}/s; ratio {ours / theirs:.2f}")


if __name__ == "__main__":
    main()
