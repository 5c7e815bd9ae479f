"""What the page shows: read every second or two, once for all watchers, and not at all while there are none."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from semel.api.jobs.events import KEEP_ALIVE, event
from semel.api.jobs.wire import job_object
from semel.api.watch.running_texts import RunningTexts
from semel.api.watch.threads import for_watchers
from semel.api.watch.throughput import Throughput
from semel.errors import SemelError
from semel.log import get_log
from semel.tasks.jobs.store import JobStore
from semel.values.job import Job

log = get_log("page")

_PERIOD_S = 1.0
_IDLE_PERIOD_S = 2.0
"""The period while no job is open; workers report at the same pace."""

_NEWEST = 10
_OPEN = 50
"""Jobs in a frame: the newest, and the oldest open ones, which are those that are running."""

_RATE_FRAMES = 15
"""Frames over which a job's rate is measured."""

_KEEP_ALIVE_S = 3.0
_UNWATCHED_S = 30.0

_ENDED_FRAMES = 5
"""Frames that still list a job after it has ended, so that no watcher misses its end."""


@dataclass(frozen=True)
class Frame:
    """One reading, encoded as server-sent events; `jobs` is separate because it often stays the same."""

    number: int
    overview: bytes
    jobs: bytes


class Lives:
    """What each namespace sees: a `Live` for each that somebody watches, and one for those who see all.

    Args:
        make: makes the one of a namespace; None stands for all.
    """

    def __init__(self, make: Callable[[str | None], "Live"]) -> None:
        self._make = make
        self._made: dict[str | None, Live] = {}

    def of(self, namespace: str | None) -> "Live":
        """The frames for those who see the jobs of a namespace, or of all."""
        return self._made.get(namespace) or self._made.setdefault(namespace, self._make(namespace))

    def stop(self) -> None:
        """End the streams of all watchers, so that the server can shut down."""
        for live in self._made.values():
            live.stop()


class Live:
    """Frames for any number of watchers: the first watcher that needs a newer frame reads it for all.

    Args:
        overview: reads pools, queues, counts of jobs, the last throughput point, the cache's totals and readiness.
    """

    def __init__(
        self,
        jobs: JobStore,
        running: RunningTexts,
        throughput: Throughput,
        *,
        overview: Callable[[], dict[str, Any]],
    ) -> None:
        self._store = jobs
        self._running = running
        self._throughput = throughput
        self._overview = overview
        self._frame = Frame(0, b"", b"")
        self._read_at = 0.0
        self._reading: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()
        self._done: dict[str, deque[tuple[float, int]]] = {}  # open job → (monotonic seconds, texts done) by frame
        self._ending: dict[str, int] = {}  # ended job → frames that will still list it

    def stop(self) -> None:
        """End the streams of all watchers, so that the server can shut down."""
        self._stopping.set()

    async def pause(self, seconds: float) -> bool:
        """Wait for some seconds; returns False as soon as the server is shutting down."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), max(0.0, seconds))
        return not self._stopping.is_set()

    async def events(self) -> AsyncIterator[bytes]:
        """Yield `history` once, then `overview` and `jobs` whenever they changed."""
        yield event("history", self._throughput.as_plain())
        is_new = time.monotonic() - self._read_at < _IDLE_PERIOD_S
        number, overview, jobs = 0 if is_new else self._frame.number, b"", b""
        while not self._stopping.is_set():
            if self._frame.number == number:  # wait() does not cancel the reading, which all share
                await asyncio.wait({self._next()}, timeout=_KEEP_ALIVE_S)
            frame = self._frame
            if frame.number == number:
                yield KEEP_ALIVE  # a slow part is not a lost connection
                continue
            number = frame.number
            news = b"".join(new for new, old in ((frame.overview, overview), (frame.jobs, jobs)) if new != old)
            overview, jobs = frame.overview, frame.jobs
            yield news or KEEP_ALIVE

    def _next(self) -> "asyncio.Task[None]":
        """The reading in progress, or a new one."""
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._read_in_time())
        return self._reading

    async def _read_in_time(self) -> None:
        pause_s = self._read_at + (_PERIOD_S if self._done else _IDLE_PERIOD_S) - time.monotonic()
        await self.pause(pause_s)
        self._frame = await for_watchers(lambda: self._read(self._frame.number + 1))

    def _read(self, number: int) -> Frame:
        now = time.monotonic()
        if now - self._read_at > _UNWATCHED_S:
            self._done.clear()  # there were no watchers: a rate over that time would be meaningless
        self._read_at = now
        try:
            return Frame(number, event("overview", self._overview()), event("jobs", self._jobs()))
        except SemelError as error:
            return Frame(number, event("trouble", {"code": error.code, "message": str(error)}), b"")
        except Exception as error:  # the stream's edge: the next reading may work
            log.exception("reading for the page failed")
            trouble = {"code": SemelError.code, "message": f"{type(error).__name__}: {error}"}
            return Frame(number, event("trouble", trouble), b"")

    def _jobs(self) -> list[dict[str, Any]]:
        store = self._store
        listed = {job.id: job for job in (*store.list_jobs(limit=_NEWEST), *store.list_open(limit=_OPEN))}
        listed |= self._ended(listed)
        in_chunks = self._running.by_job()
        return [self._entry(job, in_chunks[job.id]) for job in listed.values()]

    def _ended(self, listed: dict[str, Job]) -> dict[str, Job]:
        """Jobs that were open a few frames ago and have ended; open jobs that are no longer listed are forgotten."""
        gone = self._done.keys() - {job.id for job in listed.values() if not job.status.ended}
        found = {job.id: job for job in self._store.find([*gone, *self._ending]) if job.status.ended}
        for job_id in gone:
            del self._done[job_id]
        left = {job_id: self._ending.get(job_id, _ENDED_FRAMES) - 1 for job_id in found}
        self._ending = {job_id: frames for job_id, frames in left.items() if frames}
        return found

    def _entry(self, job: Job, in_chunks: int) -> dict[str, Any]:
        """A job with its progress; `in_chunks` are texts done in running chunks, which the job does not count yet."""
        rate, done = 0.0, job.counts.done
        if not job.status.ended:
            seen = self._done.setdefault(job.id, deque(maxlen=_RATE_FRAMES))
            done = max(done, min(job.total - 1, done + in_chunks), seen[-1][1] if seen else 0)
            seen.append((time.monotonic(), done))
            passed_s = seen[-1][0] - seen[0][0]
            rate = (done - seen[0][1]) / passed_s if passed_s else 0.0
        eta_s = round((job.total - done) / rate, 1) if rate else None
        return {
            "job": job_object(job, in_hand=in_chunks).model_dump(),
            "done": done,
            "texts_per_s": round(rate, 1),
            "eta_s": eta_s,
        }
