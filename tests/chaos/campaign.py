"""A campaign: rounds of jobs and requests under random faults, each checked against vectors computed outside semel."""

import random
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import redis
from sqlalchemy import text

from semel.client import Client
from semel.db import Database
from semel.errors import SemelError
from tests.chaos.faults import FAULTS
from tests.chaos.system import System
from tests.chaos.work import HANGER, KILLER, TOML, Work, ids_of, insist, samples, work_of_a_round, wrong_rows
from tests.support.processes import wait_until

BATCH_TEXTS = 100
"""Texts of four words in a batch of the workers."""

CLAIM_TTL_S = 30.0
"""The claims of a dead worker may be taken at once, and are forgotten after this long."""

AHEAD = 4
"""Batches that a worker has in hand while the database stands still: one on the device, one being stored, and those
of a quarter of a second."""

_DATABASE_STOOD = {"lock_database", "lock_rows", "fill_disk", "silent_network", "lost_connections"}
"""Faults during which a worker may be unable to store what it has computed."""

_ENDS_S = 180.0
"""A job that has not ended this long after the last fault is lost."""


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
        apis, workers: how many of them.
    """

    def __init__(self, folder: Path, database_url: str = "", *, apis: int = 2, workers: int = 2) -> None:
        self._folder = folder
        self._journal = folder / "journal"
        settings = {
            "SEMEL_MAX_BATCH_TOKENS": str(4 * BATCH_TEXTS),
            "SEMEL_REQUEST_TIMEOUT_S": "40",
            "SEMEL_HUNG_AFTER_S": "20",  # longer than a part stands still
        }
        toml = TOML.format(journal=self._journal)
        self.semel = System(folder, database_url, apis=apis, workers=workers, toml=toml, settings=settings)
        self._db_url = database_url or f"sqlite:///{folder / 'home' / 'semel.db'}"

    def start(self) -> None:
        """Start Redis, the APIs and the workers."""
        self.semel.start()

    def close(self) -> None:
        """Stop everything."""
        self.semel.close()

    def round(self, seed: int, *, faults: int = 2, texts: int = 1500) -> Report:
        """Run one round: jobs and perhaps a batch, small requests, and some faults in the middle."""
        rng = random.Random(seed)
        report = Report(seed, rng.sample(sorted(FAULTS), faults))
        self._journal.write_text("")
        ending = threading.Event()
        with self._supervised(report, ending), self._asked(report, rng.random(), ending):
            work = work_of_a_round(rng, seed, texts, self._folder)
            for piece in work:
                piece.submit(self.semel.client)
            for name in report.faults:
                time.sleep(rng.uniform(0.2, 1.5))
                FAULTS[name](self.semel, rng)
            healed = time.monotonic()
            self._serve_again(report, f"{seed} after", healed)
            self._check_work(report, work, healed)
        self._check_rest(report)
        return report

    @contextmanager
    def _supervised(self, report: Report, ending: threading.Event) -> Iterator[None]:
        """Start workers again that have ended by themselves."""

        def look() -> None:
            while not ending.wait(0.5):
                for name in self.semel.workers:
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

        def ask(api: str) -> None:
            with Client(self.semel.url_of(api), timeout_s=60) as client:
                for i in range(100_000):
                    if ending.wait(0.1):
                        return
                    asked = f"asked {salt} {api} {i}"
                    try:
                        row = client.embed([asked], model="fake")
                    except SemelError as error:
                        report.answers[error.code] += 1
                    else:
                        report.answers["ok"] += 1
                        report.rows += 1
                        report.problems += wrong_rows([asked], row)

        threads = [threading.Thread(target=ask, args=(api,)) for api in self.semel.apis]
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
                report.problems += wrong_rows([asked], self.semel.client.embed([asked], model="fake"))
                break
            except SemelError:
                time.sleep(0.3)
        else:
            report.problems.append("no new text is served")
        report.served_s = time.monotonic() - healed

    def _check_work(self, report: Report, work: Sequence[Work], healed: float) -> None:
        client = self.semel.client
        for piece in work:
            if not self._ends(piece, healed + _ENDS_S):
                report.problems.append(f"{piece.id} is lost: {insist(lambda piece=piece: piece.state(client))}")
                continue
            report.ended_s = time.monotonic() - healed
            report.problems += piece.problems(client)
            report.rows += piece.rows

    def _ends(self, piece: Work, deadline: float) -> bool:
        while time.monotonic() < deadline:
            with suppress(SemelError, httpx.HTTPError):
                if piece.has_ended(self.semel.client):
                    return True
            time.sleep(0.3)
        return False

    def _check_rest(self, report: Report) -> None:
        """Nothing is left over, every process lives, and only what the faults explain was computed twice."""
        for name in (*self.semel.apis, *self.semel.workers):
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
        killers = {ids_of(word).strip("[]") for word in (KILLER, HANGER)}
        again = {line for line, n in computed.items() if n > 1 and not killers & set(line.strip("[]").split(", "))}
        report.twice = len(again - samples())
        workers = len(self.semel.workers)
        killed = report.deaths + report.faults.count("kill_worker")
        cancelled = workers * report.faults.count("cancel_and_retry")  # the batches in hand are dropped
        forgotten = workers * (report.faults.count("flush_redis") + report.faults.count("kill_redis"))  # claims
        ahead = AHEAD if _DATABASE_STOOD & set(report.faults) else 1
        report.allowed_twice = BATCH_TEXTS * (killed * ahead + cancelled + forgotten)
        if "prune" not in report.faults and report.twice > report.allowed_twice:
            report.problems.append(f"{report.twice} texts were computed twice, {report.allowed_twice} are explained")
