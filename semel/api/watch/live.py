"""What the page shows, read every second or two for everybody who watches, and not at all when nobody does."""

import asyncio
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from semel.api.jobs.events import SIGN_OF_LIFE, event
from semel.api.jobs.wire import job_object
from semel.api.watch.threads import for_watchers
from semel.api.watch.throughput import Throughput
from semel.errors import SemelError
from semel.log import get_log
from semel.tasks.fleet.roster import Roster
from semel.tasks.jobs.parts import JobParts
from semel.tasks.jobs.store import JobStore
from semel.values.job import Job

log = get_log("page")

_PERIOD_S = 1.0
_AT_REST_S = 2.0
"""While no job is open; workers tell of themselves as often."""

_NEWEST = 10
_OPEN = 50
"""Jobs that are told of: the newest, and the oldest that are open, which are those under way."""

_RATE_OVER = 15
"""A job's rate is measured over so many frames."""

_SIGN_OF_LIFE_S = 3.0
_FORGOTTEN_S = 30.0

_ENDED_FRAMES = 5
"""Frames in which a job that has ended is still told of, so that no watcher misses its end."""


@dataclass(frozen=True)
class Frame:
    """One reading, as server-sent events; `jobs` is apart because it often stays the same."""

    number: int
    overview: bytes
    jobs: bytes


class Live:
    """Frames for any number of watchers: the first one that needs a newer frame reads it for all.

    Args:
        overview: reads pools, queues, counts of jobs, the last point of the throughput, the cache's totals, readiness.
    """

    def __init__(
        self,
        jobs: JobStore,
        parts: JobParts,
        roster: Roster,
        throughput: Throughput,
        *,
        overview: Callable[[], dict[str, Any]],
    ) -> None:
        self._store = jobs
        self._parts = parts
        self._roster = roster
        self._throughput = throughput
        self._overview = overview
        self._frame = Frame(0, b"", b"")
        self._read_at = 0.0
        self._reading: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()
        self._done: dict[str, deque[tuple[float, int]]] = {}
        self._ending: dict[str, int] = {}

    def stop(self) -> None:
        """Send all watchers away, so that the server can end."""
        self._stopping.set()

    async def pause(self, seconds: float) -> bool:
        """Wait; whether watchers may stay."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), max(0.0, seconds))
        return not self._stopping.is_set()

    async def events(self) -> AsyncIterator[bytes]:
        """`history` once, then `overview` and `jobs` whenever something changed."""
        yield event("history", self._throughput.as_plain())
        is_new = time.monotonic() - self._read_at < _AT_REST_S
        number, overview, jobs = 0 if is_new else self._frame.number, b"", b""
        while not self._stopping.is_set():
            if self._frame.number == number:  # no watcher ends what all wait for
                await asyncio.wait({self._next()}, timeout=_SIGN_OF_LIFE_S)
            frame = self._frame
            if frame.number == number:
                yield SIGN_OF_LIFE  # a part answers slowly: that is not a lost connection
                continue
            number = frame.number
            news = b"".join(new for new, old in ((frame.overview, overview), (frame.jobs, jobs)) if new != old)
            overview, jobs = frame.overview, frame.jobs
            yield news or SIGN_OF_LIFE

    def _next(self) -> "asyncio.Task[None]":
        """The reading under way, or a new one."""
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._read_in_time())
        return self._reading

    async def _read_in_time(self) -> None:
        pause_s = self._read_at + (_PERIOD_S if self._done else _AT_REST_S) - time.monotonic()
        await self.pause(pause_s)
        self._frame = await for_watchers(lambda: self._read(self._frame.number + 1))

    def _read(self, number: int) -> Frame:
        now = time.monotonic()
        if now - self._read_at > _FORGOTTEN_S:
            self._done.clear()  # nobody watched: a rate over that time would say nothing
        self._read_at = now
        try:
            return Frame(number, event("overview", self._overview()), event("jobs", self._jobs()))
        except SemelError as error:
            return Frame(number, event("trouble", {"code": error.code, "message": str(error)}), b"")
        except Exception as error:  # the stream's edge: the next reading may work
            log.exception("the page's reading failed")
            told = {"code": SemelError.code, "message": f"{type(error).__name__}: {error}"}
            return Frame(number, event("trouble", told), b"")

    def _jobs(self) -> list[dict[str, Any]]:
        store = self._store
        told = {job.id: job for job in (*store.list_jobs(limit=_NEWEST), *store.list_open(limit=_OPEN))}
        told |= self._ended(told)
        under_way = self._under_way()  # after the counts: what ended in between is missed, and not counted twice
        return [self._told(job, under_way[job.id]) for job in told.values()]

    def _under_way(self) -> Counter[str]:
        """Job id → texts that are done in chunks that are not, as workers said within the last two seconds."""
        cards = self._roster.live_lately()
        said = [(job_id, position, texts) for card in cards for job_id, position, texts in card.progress]
        running = self._parts.running({(job_id, position) for job_id, position, _ in said})
        done = Counter[str]()
        for job_id, position, texts in said:
            if (job_id, position) in running:
                done[job_id] += texts
        return done

    def _ended(self, told: dict[str, Job]) -> dict[str, Job]:
        """Jobs that were open some frames ago, and have ended; what newer jobs crowded out is forgotten."""
        gone = self._done.keys() - {job.id for job in told.values() if not job.status.ended}
        found = {job.id: job for job in self._store.find([*gone, *self._ending]) if job.status.ended}
        for job_id in gone:
            del self._done[job_id]
        left = {job_id: self._ending.get(job_id, _ENDED_FRAMES) - 1 for job_id in found}
        self._ending = {job_id: frames for job_id, frames in left.items() if frames}
        return found

    def _told(self, job: Job, under_way: int) -> dict[str, Any]:
        rate, done = 0.0, job.counts.done
        if not job.status.ended:
            seen = self._done.setdefault(job.id, deque(maxlen=_RATE_OVER))
            done = max(done, min(job.total - 1, done + under_way), seen[-1][1] if seen else 0)
            seen.append((time.monotonic(), done))
            passed_s = seen[-1][0] - seen[0][0]
            rate = (done - seen[0][1]) / passed_s if passed_s else 0.0
        eta_s = round((job.total - done) / rate, 1) if rate else None
        return {"job": job_object(job).model_dump(), "done": done, "texts_per_s": round(rate, 1), "eta_s": eta_s}
