"""A campaign: rounds of jobs and requests under random faults, each checked against vectors computed outside semel."""

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
import redis
from sqlalchemy import text

from semel.backends.fake import FakeBackend, FakeOptions
from semel.client import Client, RemoteJob
from semel.db import Database
from semel.errors import SemelError
from semel.values.vectors import Vectors
from tests.chaos.faults import APIS, FAULTS, WORKERS
from tests.support.processes import Processes, wait_until

POISON, KILLER = "poison", "killer"
"""Words that fail their text, and that kill the process of their worker."""

BATCH_TEXTS = 100
"""Texts of four words in a batch of the workers."""

CLAIM_TTL_S = 30.0
"""The claims of a dead worker may be taken at once, and are forgotten after this long."""

AHEAD = 4
"""Batches that a worker has in hand while the database stands still: one on the device, one being stored, and those
of a quarter of a second."""

_ENDS_S = 180.0
"""A job that has not ended this long after the last fault is lost."""

_TOML = f"""
default_model = "fake"
[models.fake]
source = "fake:?dim=16&text_ms=1&fail_on={POISON}&kill_on={KILLER}&journal={{options}}"
"""


@dataclass
class Report:
    """What one round showed.

    Attributes:
        problems: what must never happen; empty if the round passed.
        rows: vectors that were compared.
        answers: how the small requests ended: `ok`, or the status.
        twice: texts that were computed more often than once.
        allowed_twice: how many of those the faults explain.
        served_s: seconds after the last fault until a new text was served.
        ended_s: seconds after the last fault until all jobs had ended.
    """

    seed: int
    faults: list[str]
    problems: list[str] = field(default_factory=list)
    rows: int = 0
    answers: Counter[str] = field(default_factory=Counter)
    deaths: int = 0
    twice: int = 0
    allowed_twice: int = 0
    served_s: float = 0.0
    ended_s: float = 0.0


class Campaign:
    """A running semel that rounds are run on, one after the other.

    Args:
        folder: for its files.
        database_url: an empty database; "" for SQLite.
    """

    def __init__(self, folder: Path, database_url: str = "") -> None:
        self._folder = folder
        self._journal = folder / "journal"
        settings = {"SEMEL_MAX_BATCH_TOKENS": str(4 * BATCH_TEXTS), "SEMEL_REQUEST_TIMEOUT_S": "40"}
        if database_url:
            settings["SEMEL_DATABASE_URL"] = database_url
        self.semel = Processes(folder, model=str(self._journal), toml=_TOML, settings=settings)
        self._db_url = database_url or f"sqlite:///{folder / 'home' / 'semel.db'}"
        self._reference = FakeBackend("reference", FakeOptions(dim=16), device="cpu")

    def start(self) -> None:
        """Start Redis, two APIs and two workers."""
        self.semel.start_all()
        self.semel.start_api(APIS[1])
        self.semel.start_worker(WORKERS[1])
        wait_until(lambda: len(self._live()) == len(WORKERS), timeout_s=90, detail=self.semel.logs)

    def close(self) -> None:
        """Stop everything."""
        self.semel.close()

    def round(self, seed: int, *, faults: int = 2, texts: int = 1500) -> Report:
        """Run one round: two jobs that share texts, small requests, and some faults in the middle."""
        rng = random.Random(seed)
        report = Report(seed, rng.sample(sorted(FAULTS), faults))
        self._journal.write_text("")
        ending = threading.Event()
        with self._supervised(report, ending), self._asked(report, rng.random(), ending):
            jobs = [self._submit(rng, f"{seed} job {number}", texts) for number in range(2)]
            for name in report.faults:
                time.sleep(rng.uniform(0.2, 1.5))
                FAULTS[name](self.semel, rng)
            healed = time.monotonic()
            self._serve_again(report, f"{seed} after", healed)
            self._check_jobs(report, jobs, healed)
        self._check_rest(report)
        return report

    def _submit(self, rng: random.Random, name: str, count: int) -> tuple[RemoteJob, list[str]]:
        texts = [f"{name} shared {i}" if i % 10 else f"{name[:-1]}x shared {i}" for i in range(count)]
        texts[rng.randrange(count)] = f"{name} {POISON} text"
        if rng.random() < 0.3:
            texts[rng.randrange(count)] = f"{name} {KILLER} text"
        return self._insist(lambda: self.semel.client.submit(texts, model="fake", idempotency_key=name)), texts

    def _insist(self, call: Callable[[], RemoteJob]) -> RemoteJob:
        """What a client with a retry loop receives."""
        deadline = time.monotonic() + 180
        while True:
            try:
                return call()
            except (SemelError, httpx.HTTPError):
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.5)

    @contextmanager
    def _supervised(self, report: Report, ending: threading.Event) -> Iterator[None]:
        """Start workers again that have ended by themselves."""

        def look() -> None:
            while not ending.wait(0.5):
                for name in WORKERS:
                    if self.semel.revive(name):
                        report.deaths += 1

        thread = threading.Thread(target=look)
        thread.start()
        try:
            yield
        finally:
            ending.set()
            thread.join()

    @contextmanager
    def _asked(self, report: Report, salt: float, ending: threading.Event) -> Iterator[None]:
        """Small requests, one after the other, in a thread for each API."""

        def ask(number: int) -> None:
            with Client(self.semel.url_of(APIS[number]), timeout_s=60) as client:
                for i in range(100_000):
                    if ending.wait(0.1):
                        return
                    asked = f"asked {salt} {number} {i}"
                    try:
                        row = client.embed([asked], model="fake")
                    except SemelError as error:
                        report.answers[error.code] += 1
                    else:
                        report.answers["ok"] += 1
                        self._compare(report, [asked], row)

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(APIS))]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            ending.set()
            for thread in threads:
                thread.join()

    def _serve_again(self, report: Report, name: str, healed: float) -> None:
        for attempt in range(200):
            try:
                asked = f"{name} {attempt}"
                self._compare(report, [asked], self.semel.client.embed([asked], model="fake"))
                break
            except SemelError:
                time.sleep(0.3)
        else:
            report.problems.append("no new text is served")
        report.served_s = time.monotonic() - healed

    def _check_jobs(self, report: Report, jobs: list[tuple[RemoteJob, list[str]]], healed: float) -> None:
        for job, texts in jobs:
            try:
                ended = self._ended(job.id, healed + _ENDS_S)
            except TimeoutError:
                now = self.semel.client.job(job.id)
                report.problems.append(f"{job.id} is lost: {now.status}, {now.counts}")
                continue
            bad = {i: ("worker_lost" if KILLER in t else "") for i, t in enumerate(texts) if KILLER in t or POISON in t}
            if (ended.status, ended.counts.done) != ("completed", len(texts)):
                report.problems.append(f"{job.id} ended as {ended.status} with {ended.counts}: {ended.error}")
                continue
            self._check_rows(report, job.id, texts, bad)
        report.ended_s = time.monotonic() - healed

    def _ended(self, job_id: str, deadline: float) -> RemoteJob:
        while time.monotonic() < deadline:
            try:
                job = self.semel.client.job(job_id)
                if job.status.ended:
                    return job
            except (SemelError, httpx.HTTPError):
                pass
            time.sleep(0.3)
        raise TimeoutError

    def _check_rows(self, report: Report, job_id: str, texts: list[str], bad: dict[int, str]) -> None:
        with self.semel.client.results_stream(job_id, fmt="ndjson") as parts:
            lines = b"".join(parts).decode().splitlines()
        rows = [json.loads(line) for line in lines]
        if [row["index"] for row in rows] != list(range(len(texts))):
            report.problems.append(f"{job_id} has {len(rows)} rows in another order")
            return
        failed = {i: row["error"]["code"] for i, row in enumerate(rows) if row.get("error")}
        if failed.keys() != bad.keys() or any(code and failed[i] != code for i, code in bad.items()):
            report.problems.append(f"{job_id}: failed {failed}, but {bad} are bad")
        good = [i for i in range(len(texts)) if i not in failed]
        self._compare(report, [texts[i] for i in good], np.array([rows[i]["embedding"] for i in good], np.float32))

    def _compare(self, report: Report, texts: list[str], rows: Vectors) -> None:
        wrong = ~np.isclose(rows, self._reference.embed_texts(texts), atol=1e-6).all(axis=1)
        report.rows += len(texts)
        if wrong.any():
            report.problems.append(f"{wrong.sum()} wrong vectors, the first is of {texts[int(wrong.argmax())]!r}")

    def _check_rest(self, report: Report) -> None:
        """Nothing is left over, every process lives, and only what the faults explain was computed twice."""
        for name in (*APIS, *WORKERS):
            if self.semel.has_ended(name):
                report.problems.append(f"{name} has ended")
        db = Database(self._db_url)
        with db.read() as conn:
            open_chunks = conn.execute(text("SELECT count(*) FROM chunks WHERE state NOT IN ('done', 'cancelled')"))
            if left := open_chunks.scalar_one():
                report.problems.append(f"{left} chunks are left over")
        db.close()
        client = redis.Redis(port=self.semel.redis_port)
        try:
            wait_until(lambda: not list(client.scan_iter("semel:claim:*")), timeout_s=CLAIM_TTL_S + 5)
        except AssertionError:
            report.problems.append("claims are left over")
        client.close()
        computed = Counter(line for line in self._journal.read_text().splitlines())
        killer = {str(self._reference.tokenize([KILLER])[0].ids[0])}
        again = [line for line, n in computed.items() if n > 1 and not killer & set(line.strip("[]").split(", "))]
        report.twice = len(set(again) - self._samples())
        killed = report.deaths + report.faults.count("kill_worker")
        cancelled = len(WORKERS) * report.faults.count("cancel_and_retry")  # the batches in hand are dropped
        forgotten = len(WORKERS) * (report.faults.count("flush_redis") + report.faults.count("kill_redis"))  # claims
        ahead = AHEAD if "lock_database" in report.faults else 1
        report.allowed_twice = BATCH_TEXTS * (killed * ahead + cancelled + forgotten)
        if "prune" not in report.faults and report.twice > report.allowed_twice:
            report.problems.append(f"{report.twice} texts were computed twice, {report.allowed_twice} are explained")

    def _samples(self) -> set[str]:
        """The texts of the health check, which each start of a worker computes."""
        return {str(tokens.ids) for tokens in self._reference.tokenize(self._reference.samples())}

    def _live(self) -> list[object]:
        return [worker for pool in httpx.get(f"{self.semel.url}/health/backends").json() for worker in pool["workers"]]
