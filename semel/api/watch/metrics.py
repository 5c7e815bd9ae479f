"""The API's metrics for Prometheus: its own requests, and the state of queues, jobs, pools and the cache."""

import threading
from collections import Counter
from collections.abc import Iterable, Sequence

from semel.api.watch.contents import CacheContents
from semel.api.watch.pools import pools
from semel.api.watch.queue_states import queue_states
from semel.cache.prune import Pruner
from semel.cache.space_use import SpaceUse
from semel.cache.stats import SpaceStats
from semel.cache.store import VectorStore
from semel.errors import UnavailableError
from semel.metrics import Read, Resent, Sample, counter, histogram, new_registry
from semel.tasks.fleet.card import WorkerCard
from semel.tasks.fleet.roster import LIVE_S, Roster
from semel.tasks.jobs.counts import EndedJob, JobCounts
from semel.tasks.jobs.rows import Added
from semel.tasks.jobs.sweep import Swept
from semel.tasks.queue.backlog import Backlog
from semel.values.device import device_kind
from semel.values.model import Space
from semel.values.text import Outcome

COUNT_CACHE_S = 60.0
"""How often the cache is counted for the metrics; a count reads the size of every vector."""

Samples = Iterable[tuple[str, Iterable[Sample]]]
"""Pairs of a metric's name and its samples."""


class ApiMetrics:
    """The counters of one API process.

    Args:
        use: counts the look-ups as well, in the database.
    """

    def __init__(self, use: SpaceUse) -> None:
        self._use = use
        self._answered = 0
        self._lock = threading.Lock()
        self.registry = new_registry()
        self._texts = counter("semel_request_texts_total", self.registry)
        self._saved = counter("semel_saved_device_seconds_total", self.registry)
        self._lookups = counter("semel_cache_lookups_total", self.registry)
        self._resent = Resent(self.registry)
        self._job_seconds = histogram("semel_job_seconds", self.registry)
        self._first_result = histogram("semel_job_first_result_seconds", self.registry)
        self._http = histogram("semel_http_request_seconds", self.registry)
        self._rates: dict[str, float] = {}

    def embedded(self, space: Space, outcomes: Sequence[Outcome]) -> None:
        """Count the texts of an answered request."""
        counts = Counter(outcomes)
        for outcome in Outcome:  # all of them: a counter that first appears with its first failure shows no increase
            self._texts.labels(outcome.value, space.model).inc(counts[outcome])
        hits = counts[Outcome.HIT]
        self._looked_up(space, len(outcomes), hits=hits, answered=hits)

    def ingested(self, space: Space, texts: int, added: Added) -> None:
        """Count texts that were added to a job."""
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
        """Texts that this process answered from the cache, without a worker."""
        return self._answered

    def responded(self, method: str, route: str, status: int, seconds: float) -> None:
        """Record the seconds until an answer began."""
        self._http.labels(method, route, str(status)).observe(seconds)

    def swept(self, swept: Swept) -> None:
        """Count the chunks that a sweep of this API started again."""
        self._resent.count(leases_expired=swept.leases_expired, messages_lost=swept.messages_lost)

    def ended(self, jobs: Iterable[EndedJob]) -> None:
        """Record how long ended jobs took, and how long until their first result."""
        for job in jobs:
            self._job_seconds.labels(job.status).observe(max(0.0, job.ended_at - job.begun_at))
            if job.first_result_at is not None and job.first_result_at >= job.begun_at:
                self._first_result.observe(job.first_result_at - job.begun_at)

    def take_rates(self, live: Sequence[WorkerCard]) -> None:
        """Remember the rate of the fastest live worker for each model, to estimate the device time that hits save."""
        rates: dict[str, float] = {}
        for card in live:
            for model in card.models:
                rates[model] = max(rates.get(model, 0.0), card.texts_per_s)
        self._rates = rates


class ApiReadings:
    """The metrics that are read from the database and Redis on each scrape."""

    def __init__(
        self,
        counts: JobCounts,
        vectors: VectorStore,
        pruner: Pruner,
        contents: CacheContents,
        roster: Roster,
        backlog: Backlog,
    ) -> None:
        self._counts = counts
        self._vectors = vectors
        self._pruner = pruner
        self._contents = contents
        self._roster = roster
        self._backlog = backlog
        self._spaces: Sequence[SpaceStats] = ()

    def collector(self) -> Read:
        """The collector that a registry reads these metrics from."""
        return Read(self._read)

    def count_cache(self) -> None:
        """Count the vectors for the next scrapes, because counting is too slow to be done on each of them."""
        self._spaces = self._contents.read().spaces

    def _read(self) -> Samples:
        yield "semel_jobs", [([status], count) for status, count in self._counts.count_by_status().items()]
        yield "semel_cache_entries", _by_model(self._spaces, "entries")
        yield "semel_cache_bytes", _by_model(self._spaces, "bytes")
        yield "semel_cache_evictions_total", [([], self._pruner.pruned)]
        yield "semel_cache_verify_failures_total", [([], self._vectors.damaged)]
        try:
            live = self._roster.live()
            yield from self._queue_samples(live)
            yield from self._worker_samples(live)
        except UnavailableError:
            return  # without Redis there are no queues to report; /health/ready names the reason

    def _queue_samples(self, live: Sequence[WorkerCard]) -> Samples:
        queues = queue_states(self._counts, self._backlog, live)
        yield "semel_queue_messages", [([queue.queue], queue.messages) for queue in queues]
        yield "semel_queue_texts", [([queue.queue], queue.texts) for queue in queues]
        known = [queue for queue in queues if queue.work_s is not None]
        yield "semel_queue_work_seconds", [([queue.queue], queue.work_s or 0.0) for queue in known]
        yield "semel_queue_oldest_seconds", [([queue.queue], queue.oldest_s) for queue in queues]

    def _worker_samples(self, live: Sequence[WorkerCard]) -> Samples:
        statuses = Counter(
            (pool.device, worker.status) for pool in pools(live, self._roster.failed()) for worker in pool.workers
        )
        yield "semel_workers", [(list(labels), count) for labels, count in statuses.items()]
        ages: dict[str, float] = {}
        for card, left_s in zip(live, self._roster.time_left([card.id for card in live]), strict=True):
            kind = device_kind(card.device)
            ages[kind] = max(ages.get(kind, 0.0), LIVE_S - left_s)
        yield "semel_heartbeat_age_seconds", [([kind], age) for kind, age in ages.items()]


def _by_model(spaces: Sequence[SpaceStats], field: str) -> list[Sample]:
    total: Counter[str] = Counter()
    for space in spaces:
        total[space.model] += getattr(space, field)
    return [([model], value) for model, value in total.items()]
