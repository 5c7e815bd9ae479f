"""What the API tells Prometheus: its own requests, and what it sees of queues, jobs, pools and the cache."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from semel.api.pools import pools
from semel.cache.store import SpaceStats
from semel.errors import UnavailableError
from semel.tasks.metrics import Read, Resent, Sample, counter, histogram, new_registry
from semel.tasks.queues import queue_name
from semel.tasks.roster import LIVE_S, WorkerCard
from semel.values import Lane, Outcome, Space, device_kind

if TYPE_CHECKING:
    from semel.api.services import Services

COUNT_CACHE_S = 60.0
"""Counting the vectors walks through an index of all of them."""

_UNKNOWN_ROUTE = "none"
"""Of a path that no route takes; the path itself could be anything."""


class ApiMetrics:
    """The metrics of one API process."""

    def __init__(self) -> None:
        self.registry = new_registry()
        self._texts = counter("semel_request_texts_total", self.registry)
        self._saved = counter("semel_saved_device_seconds_total", self.registry)
        self.resent = Resent(self.registry)
        self._http = histogram("semel_http_request_seconds", self.registry)
        self._rates: dict[str, float] = {}
        self._spaces: Sequence[SpaceStats] = ()

    def watch(self, services: "Services") -> None:
        """Read the rest off these when Prometheus asks."""
        self.registry.register(Read(lambda: self._read(services)))

    def embedded(self, space: Space, outcomes: Sequence[Outcome]) -> None:
        """A request was answered."""
        self.count(space.model, Counter(outcomes))

    def count(self, model: str, outcomes: Mapping[Outcome, int]) -> None:
        """So many texts ended in these ways."""
        for outcome, count in outcomes.items():
            self._texts.labels(outcome.value, model).inc(count)
        rate, hits = self._rates.get(model), outcomes.get(Outcome.HIT, 0)
        if rate and hits:
            self._saved.labels(model).inc(hits / rate)

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """An answer began."""
        self._http.labels(method, route, str(status)).observe(seconds)

    def count_cache(self, services: "Services") -> None:
        """To be called now and then."""
        self._spaces = services.store.stats()

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
    kinds = {device_kind(card.device) for card in live}
    queues = [(lane, device) for device in sorted(kinds | services.job_counts.active_devices()) for lane in Lane]
    labels = [[queue_name(lane, device)] for lane, device in queues]

    def each(read: Any) -> list[Sample]:
        return [(label, float(read(lane, device))) for label, (lane, device) in zip(labels, queues, strict=True)]

    now = time.time()
    yield "semel_queue_messages", each(services.backlog.messages)
    yield "semel_queue_texts", each(lambda lane, device: services.job_counts.waiting_texts(lanes=[lane], device=device))
    yield "semel_queue_work_seconds", each(services.backlog.seconds)
    yield (
        "semel_queue_oldest_seconds",
        each(lambda lane, device: max(0.0, now - (services.job_counts.oldest_sent(lane=lane, device=device) or now))),
    )


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
        started = time.perf_counter()

        async def timed(message: Any) -> None:
            if message["type"] == "http.response.start":
                route = getattr(scope.get("route"), "path", _UNKNOWN_ROUTE)
                seconds = time.perf_counter() - started
                self._answered(_method(scope), route, message["status"], seconds)
            await send(message)

        await self._app(scope, receive, timed)


def _method(scope: Any) -> str:
    method: str = scope["method"]
    return method if method in ("GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH") else "other"
