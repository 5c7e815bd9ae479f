"""What the API tells Prometheus: its own requests, and what it sees of queues, jobs, pools and the cache."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from semel.api.watch.pools import pools
from semel.api.watch.queue_states import queue_states
from semel.cache.space_use import SpaceUse
from semel.cache.store import SpaceStats
from semel.errors import UnavailableError
from semel.metrics import Read, Resent, Sample, counter, histogram, new_registry
from semel.tasks.fleet.roster import LIVE_S, WorkerCard
from semel.tasks.jobs.counts import EndedJob
from semel.tasks.jobs.store import Added
from semel.values import Outcome, Space, device_kind

if TYPE_CHECKING:
    from semel.api.services import Services

COUNT_CACHE_S = 60.0
"""Counting reads the size of every vector."""

_UNKNOWN_ROUTE = "none"
"""Of a path that no route takes; the path itself could be anything."""


class ApiMetrics:
    """The metrics of one API process.

    Args:
        use: is told of look-ups, too, and outlives the process.
    """

    def __init__(self, use: SpaceUse) -> None:
        self._use = use
        self._answered = 0
        self._lock = threading.Lock()
        self.registry = new_registry()
        self._texts = counter("semel_request_texts_total", self.registry)
        self._saved = counter("semel_saved_device_seconds_total", self.registry)
        self._lookups = counter("semel_cache_lookups_total", self.registry)
        self.resent = Resent(self.registry)
        self._job_seconds = histogram("semel_job_seconds", self.registry)
        self._first_result = histogram("semel_job_first_result_seconds", self.registry)
        self._http = histogram("semel_http_request_seconds", self.registry)
        self._rates: dict[str, float] = {}
        self._spaces: Sequence[SpaceStats] = ()

    def watch(self, services: "Services") -> None:
        """Read the rest off these when Prometheus asks."""
        self.registry.register(Read(lambda: self._read(services)))

    def embedded(self, space: Space, outcomes: Sequence[Outcome]) -> None:
        """A request was answered."""
        counts = Counter(outcomes)
        for outcome in Outcome:  # all of them: a counter that begins with the first failure has not grown by it
            self._texts.labels(outcome.value, space.model).inc(counts[outcome])
        hits = counts[Outcome.HIT]
        self._looked_up(space, len(outcomes), hits=hits, answered=hits)

    def ingested(self, space: Space, *, texts: int, added: Added) -> None:
        """So many texts were added to a job."""
        self._texts.labels(Outcome.HIT.value, space.model).inc(added.done)
        self._looked_up(space, texts, hits=added.present, answered=added.done)

    def _looked_up(self, space: Space, lookups: int, *, hits: int, answered: int) -> None:
        rate = self._rates.get(space.model)
        saved_s = hits / rate if rate else 0.0
        self._lookups.labels("hit", space.model).inc(hits)
        self._lookups.labels("miss", space.model).inc(lookups - hits)
        self._saved.labels(space.model).inc(saved_s)
        self._use.count(space.fingerprint, lookups=lookups, hits=hits, saved_s=saved_s)
        with self._lock:
            self._answered += answered

    @property
    def answered(self) -> int:
        """Texts that this process found in the cache and that no worker saw."""
        return self._answered

    def responded(self, method: str, route: str, status: int, seconds: float) -> None:
        """An answer began."""
        self._http.labels(method, route, str(status)).observe(seconds)

    def ended(self, jobs: Iterable[EndedJob]) -> None:
        """These jobs have ended."""
        for job in jobs:
            self._job_seconds.labels(job.status).observe(max(0.0, job.ended_at - job.begun_at))
            if job.first_result_at is not None and job.first_result_at >= job.begun_at:
                self._first_result.observe(job.first_result_at - job.begun_at)

    def count_cache(self, services: "Services") -> None:
        """To be called now and then."""
        self._spaces = services.contents.read().spaces

    def look_at_rates(self, services: "Services") -> None:
        """To be called now and then: what a text costs on the fastest live worker with its model."""
        rates: dict[str, float] = {}
        for card in services.roster.live_lately():
            for model in card.models:
                rates[model] = max(rates.get(model, 0.0), card.texts_per_s)
        self._rates = rates

    def _read(self, services: "Services") -> Iterable[tuple[str, Iterable[Sample]]]:
        yield "semel_jobs", [([status], count) for status, count in services.job_counts.count_by_status().items()]
        yield "semel_cache_entries", _by_model(self._spaces, "entries")
        yield "semel_cache_bytes", _by_model(self._spaces, "bytes")
        yield "semel_cache_evictions_total", [([], services.store.pruned)]
        yield "semel_cache_verify_failures_total", [([], services.store.damaged)]
        try:
            live = services.roster.live()
            yield from _of_queues(services, live)
            yield from _of_workers(services, live)
        except UnavailableError:
            return  # without Redis there are no queues to tell of, and /health/ready says why


def _by_model(spaces: Sequence[SpaceStats], what: str) -> list[Sample]:
    total: Counter[str] = Counter()
    for space in spaces:
        total[space.model] += getattr(space, what)
    return [([model], value) for model, value in total.items()]


def _of_queues(services: "Services", live: Sequence[WorkerCard]) -> Iterable[tuple[str, Iterable[Sample]]]:
    queues = queue_states(services, live)
    yield "semel_queue_messages", [([queue.queue], queue.messages) for queue in queues]
    yield "semel_queue_texts", [([queue.queue], queue.texts) for queue in queues]
    known = [queue for queue in queues if queue.work_s is not None]
    yield "semel_queue_work_seconds", [([queue.queue], queue.work_s or 0.0) for queue in known]
    yield "semel_queue_oldest_seconds", [([queue.queue], queue.oldest_s) for queue in queues]


def _of_workers(services: "Services", live: Sequence[WorkerCard]) -> Iterable[tuple[str, Iterable[Sample]]]:
    statuses = Counter(
        (pool.device, worker.status) for pool in pools(live, services.roster.failed()) for worker in pool.workers
    )
    yield "semel_workers", [(list(labels), count) for labels, count in statuses.items()]
    ages: dict[str, float] = {}
    for card, left_s in zip(live, services.roster.time_left([card.id for card in live]), strict=True):
        kind = device_kind(card.device)
        ages[kind] = max(ages.get(kind, 0.0), LIVE_S - left_s)
    yield "semel_heartbeat_age_seconds", [([kind], age) for kind, age in ages.items()]


class HttpMetrics:
    """ASGI middleware that times answers, and tells method, route, status and seconds."""

    def __init__(self, app: Any, *, answered: Callable[[str, str, int, float], None]) -> None:
        self._app = app
        self._answered = answered

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, begun = time.perf_counter(), False

        def tell(status: int) -> None:
            nonlocal begun
            begun = True
            route = getattr(scope.get("route"), "path", _UNKNOWN_ROUTE)
            self._answered(_method(scope), route, status, time.perf_counter() - started)

        async def timed(message: Any) -> None:
            if message["type"] == "http.response.start":
                tell(message["status"])
            await send(message)

        try:
            await self._app(scope, receive, timed)
        except Exception:
            if not begun:
                tell(500)  # which Starlette answers, outside of this
            raise


def _method(scope: Any) -> str:
    method: str = scope["method"]
    return method if method in ("GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH") else "other"
