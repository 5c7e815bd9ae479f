"""The parts that the routes use, built once when the API starts."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import redis
from celery import Celery

from semel.api.jobs.results import ResultReader
from semel.api.watch.contents import CacheContents
from semel.api.watch.ended_jobs import EndedJobs
from semel.api.watch.machine import Machine
from semel.api.watch.metrics import ApiMetrics, ApiReadings
from semel.api.watch.pings import ping_redis, ping_sweeps, ping_workers
from semel.api.watch.running_texts import RunningTexts
from semel.api.watch.throughput import Throughput
from semel.cache.catalog import Catalog
from semel.cache.prune import Pruner
from semel.cache.space_use import SpaceUse
from semel.cache.stats import CacheStats
from semel.cache.store import VectorStore
from semel.db import Database
from semel.errors import SemelError, UnavailableError
from semel.log import get_log
from semel.pipeline import Pipeline
from semel.redis_client import connect_redis
from semel.rerank import Reranker
from semel.settings import Settings
from semel.tasks.fleet.failover import Failover
from semel.tasks.fleet.redis_owner import RedisOwner
from semel.tasks.fleet.roster import Roster
from semel.tasks.jobs.batches import BatchStore
from semel.tasks.jobs.chunks import ChunkStore
from semel.tasks.jobs.counts import JobCounts
from semel.tasks.jobs.disk_use import DiskUse
from semel.tasks.jobs.files import FileStore
from semel.tasks.jobs.holding import Holding
from semel.tasks.jobs.idempotency import IdempotencyKeys
from semel.tasks.jobs.installation import installation_id
from semel.tasks.jobs.key_use import KeyUse
from semel.tasks.jobs.moves import JobMoves
from semel.tasks.jobs.parts import JobParts
from semel.tasks.jobs.store import JobStore
from semel.tasks.jobs.sweep import Sweeper
from semel.tasks.jobs.uploads import UploadStore
from semel.tasks.jobs.webhooks import WebhookStore
from semel.tasks.queue.app import make_app
from semel.tasks.queue.backlog import Backlog
from semel.tasks.queue.care import RequestCare
from semel.tasks.queue.dispatch import Dispatcher
from semel.tasks.queue.outbox import Outbox
from semel.tasks.queue.router import Router
from semel.tasks.queue.sender import QueueSender
from semel.vector_import import Importer

log = get_log("api")

_WATCHING_S = 2.0
"""A command for a view, a metric or a ping may take this long: probes and scrapes give up after a few seconds, while a
request for work waits until a Redis that stands still goes on."""


@dataclass(frozen=True)
class Stores:
    """The database, and every store in it."""

    db: Database
    installation: str
    vectors: VectorStore
    catalog: Catalog
    space_use: SpaceUse
    jobs: JobStore
    counts: JobCounts
    parts: JobParts
    idempotency: IdempotencyKeys
    files: FileStore
    uploads: UploadStore
    disk_use: DiskUse
    key_use: KeyUse
    batches: BatchStore
    webhooks: WebhookStore


@dataclass(frozen=True)
class Fleet:
    """Redis, the workers that are reached through it, and the parts that send work to them."""

    redis: "redis.Redis"
    redis_owner: RedisOwner
    roster: Roster
    router: Router
    failover: Failover
    dispatcher: Dispatcher
    outbox: Outbox
    care: RequestCare
    backlog: Backlog
    sender: QueueSender

    def ping(self) -> None:
        """Check that Redis takes work. Raises UnavailableError."""
        ping_redis(self.redis)


@dataclass(frozen=True)
class Watch:
    """The sources of the page, of Prometheus, of probes and of the cache view.

    Attributes:
        redis: a client that soon gives up.
        roster: as that of the fleet, through this client.
    """

    redis: "redis.Redis"
    roster: Roster
    metrics: ApiMetrics
    readings: ApiReadings
    contents: CacheContents
    throughput: Throughput
    ended_jobs: EndedJobs
    running: RunningTexts
    machine: Machine


@dataclass(frozen=True)
class Services:
    """The parts of a running API."""

    settings: Settings
    stores: Stores
    fleet: Fleet
    watch: Watch
    pipeline: Pipeline
    reranker: Reranker
    importer: Importer
    results: ResultReader
    pruner: Pruner
    sweeper: Sweeper

    @property
    def pings(self) -> dict[str, Callable[[], None]]:
        """Name of a part → a call that raises SemelError when the part does not answer."""
        return {
            "database": self.stores.db.ping,
            "redis": lambda: ping_redis(self.watch.redis),
            "workers": lambda: ping_workers(self.watch.roster, self.settings.required_devices),
            "sweeps": lambda: ping_sweeps(self.sweeper),
        }

    def close(self) -> None:
        """Write the counts that are still in memory, and close every connection."""
        try:
            self.stores.space_use.write()
            self.stores.key_use.write()
        except SemelError as error:
            log.warning("could not write the last counts of use", reason=str(error))
        self.watch.machine.close()
        self.fleet.outbox.close()
        self.fleet.redis.close()
        self.watch.redis.close()
        self.stores.db.close()


def build_services(settings: Settings) -> Services:
    """Open the database and build every part. Redis is contacted when it is first needed.

    Raises:
        UnavailableError: the database does not answer.
    """
    url = settings.redis_url
    return assemble(settings, connect_redis(url), make_app(url), watching=connect_redis(url, timeout_s=_WATCHING_S))


def assemble(
    settings: Settings, client: "redis.Redis", celery: Celery, *, watching: "redis.Redis | None" = None
) -> Services:
    """Build every part.

    Args:
        client: of Redis.
        celery: the application to send tasks with.
        watching: a client of the same Redis that soon gives up, for views; `client` if it is None.

    Raises:
        UnavailableError: the database does not answer.
        BadInputError: the home folder holds the files of another database.
        ConflictError: another installation uses this Redis.
    """
    stores = _stores(settings)
    fleet = _fleet(settings, stores, client, celery)
    watching = client if watching is None else watching
    roster = Roster(watching)
    contents = CacheContents(CacheStats(stores.db), stores.space_use)
    pruner = Pruner(stores.db, keep=Holding(stores.db).needed_keys)
    watch = Watch(
        redis=watching,
        roster=roster,
        metrics=ApiMetrics(stores.space_use),
        readings=ApiReadings(stores.counts, stores.vectors, pruner, contents, roster, fleet.backlog),
        contents=contents,
        throughput=Throughput(),
        ended_jobs=EndedJobs(stores.counts),
        running=RunningTexts(stores.parts, roster),
        machine=Machine(),
    )
    watch.metrics.registry.register(watch.readings.collector())
    pipeline = Pipeline(stores.vectors, fleet.sender, on_embedded=watch.metrics.embedded)
    return Services(
        settings=settings,
        stores=stores,
        fleet=fleet,
        watch=watch,
        pipeline=pipeline,
        reranker=Reranker(pipeline, stores.catalog),
        importer=Importer(stores.vectors, pipeline, fleet.sender),
        results=ResultReader(stores.jobs, stores.vectors, stores.catalog, pipeline),
        pruner=pruner,
        sweeper=Sweeper(
            stores.db,
            retention_s=settings.job_retention_s,
            max_attempts=settings.max_attempts,
            lookup=stores.vectors.lookup_on,
        ),
    )


def _stores(settings: Settings) -> Stores:
    db = Database(settings.database, max_bytes=settings.database_max_bytes, kept_connections=8)
    db.upgrade()
    installation = installation_id(db)
    folder = settings.home / "files"
    files = FileStore(db, folder, retention_s=settings.file_retention_s, database_id=installation)
    return Stores(
        db=db,
        installation=installation,
        vectors=VectorStore(db, dtype=settings.vector_dtype),
        catalog=Catalog(db, default_model=settings.default_model, configured=settings.all_models),
        space_use=SpaceUse(db),
        jobs=JobStore(db, window_s=settings.job_window_s, retention_s=settings.job_retention_s),
        counts=JobCounts(db),
        parts=JobParts(db),
        idempotency=IdempotencyKeys(db),
        files=files,
        disk_use=DiskUse(db),
        key_use=KeyUse(db),
        uploads=UploadStore(db, files, settings.home / "uploads"),
        batches=BatchStore(db),
        webhooks=WebhookStore(db),
    )


def _fleet(settings: Settings, stores: Stores, client: "redis.Redis", celery: Celery) -> Fleet:
    roster = Roster(client)
    router = Router(roster, stores.catalog, use_case=settings.use_case)
    dispatcher = Dispatcher(ChunkStore(stores.db, retention_s=settings.job_retention_s), celery, roster)
    timeout_s = settings.request_timeout_s
    outbox = Outbox(celery, client, router, inline_bytes=settings.inline_bytes)
    care = RequestCare(outbox, client, roster, router, timeout_s=timeout_s)
    backlog = Backlog(stores.counts, roster, client, requests=care, max_s=settings.max_queue_s)
    moves = JobMoves(stores.db)
    redis_owner = RedisOwner(client, stores.installation)
    with suppress(UnavailableError):  # the API starts without Redis, which may come later
        redis_owner.renew()
    return Fleet(
        redis=client,
        redis_owner=redis_owner,
        roster=roster,
        router=router,
        failover=Failover(stores.jobs, moves, roster, use_case=settings.use_case, fail_after_s=settings.no_worker_s),
        dispatcher=dispatcher,
        outbox=outbox,
        care=care,
        backlog=backlog,
        sender=QueueSender(outbox, router, backlog, inline_bytes=settings.inline_bytes, timeout_s=timeout_s),
    )
