"""What the routes need, built once when the API starts."""

from collections.abc import Callable
from dataclasses import dataclass

import redis
from celery import Celery

from semel.api.watch.contents import CacheContents
from semel.api.watch.ended_jobs import EndedJobs
from semel.api.watch.machine import Machine
from semel.api.watch.metrics import ApiMetrics
from semel.api.watch.throughput import Throughput
from semel.cache.catalog import Catalog
from semel.cache.space_use import SpaceUse
from semel.cache.store import VectorStore
from semel.db import Database
from semel.errors import SemelError, UnavailableError
from semel.log import get_log
from semel.pipeline import Pipeline
from semel.rerank import Reranker
from semel.settings import Settings
from semel.tasks.fleet.failover import Failover
from semel.tasks.fleet.roster import Roster, connect_redis, unreachable
from semel.tasks.jobs.batches import BatchStore
from semel.tasks.jobs.counts import JobCounts
from semel.tasks.jobs.files import FileStore
from semel.tasks.jobs.idempotency import IdempotencyKeys
from semel.tasks.jobs.parts import JobParts
from semel.tasks.jobs.store import JobStore
from semel.tasks.jobs.webhooks import WebhookStore
from semel.tasks.queue.app import make_app
from semel.tasks.queue.backlog import Backlog
from semel.tasks.queue.dispatch import Dispatcher
from semel.tasks.queue.doorbell import Doorbell
from semel.tasks.queue.sender import QueueSender, Router
from semel.values import device_kind
from semel.vector_import import Importer

log = get_log("api")


@dataclass(frozen=True)
class Services:
    """The parts of a running API."""

    settings: Settings
    db: Database
    redis: "redis.Redis"
    celery: Celery
    store: VectorStore
    jobs: JobStore
    job_counts: JobCounts
    job_parts: JobParts
    idempotency: IdempotencyKeys
    files: FileStore
    batches: BatchStore
    webhooks: WebhookStore
    catalog: Catalog
    roster: Roster
    router: Router
    failover: Failover
    dispatcher: Dispatcher
    backlog: Backlog
    doorbell: Doorbell
    sender: QueueSender
    pipeline: Pipeline
    reranker: Reranker
    importer: Importer
    metrics: ApiMetrics
    space_use: SpaceUse
    contents: CacheContents
    throughput: Throughput
    ended_jobs: EndedJobs
    machine: Machine

    def ping_redis(self) -> None:
        """Raises UnavailableError."""
        try:
            self.redis.ping()
        except redis.RedisError as error:
            raise unreachable(error) from error

    def ping_workers(self) -> None:
        """Raises UnavailableError when nobody is there to compute."""
        live = self.roster.live()
        states = {worker.state for worker in live}
        if not states:
            raise UnavailableError("no worker is alive; start one: semel worker --device cpu")
        if "ready" not in states:
            raise UnavailableError("the workers are still loading their model")
        there = {device_kind(worker.device) for worker in live}
        if missing := [kind for kind in self.settings.required_devices if kind not in there]:
            kinds = ", ".join(missing)
            raise UnavailableError(f"no worker is alive for {kinds}; start one: semel worker --device {missing[0]}")

    def sweep(self) -> None:
        """End what was cancelled or is late, and free what dead workers held; sending again is for workers."""
        swept = self.jobs.sweep(empty_queues=[], resend_after_s=0, max_attempts=self.settings.max_attempts)
        self.metrics.resent.count(swept)

    def sample_throughput(self) -> None:
        """To be called at a steady pace."""
        self.throughput.sample(self.roster.live_lately(), hits_here=self.metrics.answered)

    @property
    def pings(self) -> dict[str, Callable[[], None]]:
        """Name of a part → a call that raises when it does not answer."""
        return {"database": self.db.ping, "redis": self.ping_redis, "workers": self.ping_workers}

    def close(self) -> None:
        try:
            self.space_use.write()
        except SemelError as error:
            log.warning("the last counts of the spaces are lost", reason=str(error))
        self.machine.close()
        self.doorbell.close()
        self.redis.close()
        self.db.close()


def build_services(settings: Settings) -> Services:
    """Open the database and prepare everything; Redis is contacted when first needed."""
    db = Database(settings.database, max_bytes=settings.database_max_bytes)
    db.upgrade()
    client = connect_redis(settings.redis_url)
    celery = make_app(settings.redis_url)
    store = VectorStore(db, dtype=settings.vector_dtype)
    jobs = JobStore(db, window_s=settings.job_window_s, retention_s=settings.job_retention_s)
    catalog, roster, doorbell = Catalog(db, default_model=settings.default_model), Roster(client), Doorbell(client)
    router = Router(roster, catalog, use_case=settings.use_case)
    dispatcher = Dispatcher(jobs, celery, roster)
    job_counts = JobCounts(db)
    backlog = Backlog(job_counts, roster, client, max_s=settings.max_queue_s)
    sender = QueueSender(celery, doorbell, router, jobs, dispatcher, store, backlog, settings)
    space_use = SpaceUse(db)
    metrics = ApiMetrics(space_use)
    pipeline = Pipeline(store, sender, on_embedded=metrics.embedded)
    return Services(
        settings=settings,
        db=db,
        redis=client,
        celery=celery,
        store=store,
        jobs=jobs,
        job_counts=job_counts,
        job_parts=JobParts(db),
        idempotency=IdempotencyKeys(db),
        files=FileStore(db, settings.home / "files", retention_s=settings.file_retention_s),
        batches=BatchStore(db),
        webhooks=WebhookStore(db),
        catalog=catalog,
        roster=roster,
        router=router,
        failover=Failover(db, jobs, roster, use_case=settings.use_case, fail_after_s=settings.no_worker_s),
        dispatcher=dispatcher,
        backlog=backlog,
        doorbell=doorbell,
        sender=sender,
        pipeline=pipeline,
        reranker=Reranker(pipeline, catalog),
        importer=Importer(store, pipeline, sender),
        metrics=metrics,
        space_use=space_use,
        contents=CacheContents(store, space_use),
        throughput=Throughput(),
        ended_jobs=EndedJobs(job_counts),
        machine=Machine(),
    )
