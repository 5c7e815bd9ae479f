"""The FastAPI application."""

from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Protocol

import anyio.to_thread
from fastapi import FastAPI
from fastapi.concurrency import run_in_threadpool
from fastapi_offline import FastAPIOffline

from semel import __version__
from semel.api.batch.runner import BatchRunner
from semel.api.edge.body_limit import BodyLimit
from semel.api.edge.foreign_pages import OwnNames
from semel.api.edge.http_metrics import HttpMetrics
from semel.api.edge.joint_steps import JointSteps
from semel.api.edge.keys import KeyRing
from semel.api.edge.openapi import document
from semel.api.edge.problems import add_problem_handlers
from semel.api.edge.request_id import RequestId
from semel.api.edge.traits import RouteTable
from semel.api.jobs.small import SmallSubmissions
from semel.api.jobs.small_reads import SmallReads
from semel.api.jobs.webhooks import WebhookSender
from semel.api.routes import (
    batches,
    cache,
    classify,
    cohere,
    embed_rerank,
    embeddings,
    files,
    health,
    jobs,
    keys,
    live,
    models,
    ollama,
    page,
    predict,
    rerank,
    score,
    sparse,
    syncs,
    tei,
    uploads,
)
from semel.api.routes import metrics as metrics_route
from semel.api.services import Services, build_services
from semel.api.tenants import Tenants
from semel.api.watch.live import Live, Lives
from semel.api.watch.metrics import COUNT_CACHE_S
from semel.api.watch.overview import overview
from semel.repeating import Repeating
from semel.settings import Settings
from semel.tasks.fleet.redis_owner import RENEW_S
from semel.tasks.fleet.roster import BEAT_S
from semel.tasks.queue.care import LOOK_S
from semel.tracing import close_traces, trace_requests
from semel.values.job import Submitter

_THREADS = 64
"""Threads for synchronous routes: they read and write the database. Requests that wait for a device hold none."""

_WRITE_USE_S = 5.0
"""`kill -9` may lose the last seconds of the counters in the cache view, at most this many."""

_COUNT_JOBS_S = 10.0
"""Finding the jobs that have ended reads every stored job, so it is done rarely."""

_ROUTES = (
    *(embeddings, jobs, files, uploads, batches, cache, models, keys, syncs),
    *(rerank, score, classify, cohere, tei, predict, sparse, ollama, embed_rerank),
    *(health, live, metrics_route, page),
)


def create_app(settings: Settings, *, build: Callable[[Settings], Services] = build_services) -> FastAPI:
    """Create the API.

    Args:
        build: makes the services when the application starts, and may raise UnavailableError then.

    Raises:
        BadInputError: an API key in the settings is not valid.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        anyio.to_thread.current_default_thread_limiter().total_tokens = _THREADS
        services = app.state.services = build(settings)
        app.state.tenants, app.state.lives = _views(services)
        app.state.small_jobs, app.state.small_reads = SmallSubmissions(services), SmallReads(services)
        app.state.joint_steps = JointSteps(services.fleet.sender)
        background = _background(services)
        for part in background:
            part.start()
        yield
        for gathering in (app.state.small_jobs, app.state.small_reads, app.state.joint_steps):
            await run_in_threadpool(gathering.close)
        await run_in_threadpool(_end, services, background)

    app = FastAPIOffline(  # /docs without a CDN
        redoc_url=None,
        favicon_url="page/icon.svg",
        title="semel",
        version=__version__,
        summary="Every text is embedded once.",
        lifespan=lifespan,
        telemetry={"tracing": False, "metrics": False, "logs": False},  # semel has its own
    )
    app.state.api_keys = KeyRing(settings)
    app.state.own_names = OwnNames.of(settings)
    app.state.max_body_bytes = settings.max_body_bytes
    routes = app.state.route_table = RouteTable(module.router for module in _ROUTES)
    for module in _ROUTES:
        app.include_router(module.router)
    add_problem_handlers(app)
    app.openapi = lambda: document(app, routes)  # type: ignore[method-assign]  # as FastAPI's documentation does it
    app.add_middleware(BodyLimit, routes=routes, max_bytes=settings.max_body_bytes)
    app.add_middleware(RequestId)
    app.add_middleware(HttpMetrics, answered=lambda *answer: app.state.services.watch.metrics.responded(*answer))
    trace_requests(app, untraced=routes.untraced())

    return app


def _views(services: Services) -> tuple[Tenants, Lives]:
    """What the namespaces see of the server, and of what happens there."""
    tenants, watch = Tenants(services), services.watch

    def live(namespace: str | None) -> Live:
        seen = services if namespace is None else tenants.view(Submitter(namespace=namespace), sees_all=False)
        return Live(seen.stores.jobs, watch.running, watch.throughput, overview=lambda: overview(seen))

    return tenants, Lives(live)


def _end(services: Services, background: Sequence["_Part"]) -> None:
    with ThreadPoolExecutor(len(background)) as pool:  # in parallel: each may first finish the work that it has begun
        list(pool.map(lambda part: part.stop(), background))
    try:
        services.close()
    finally:
        close_traces()


class _Part(Protocol):
    """Work that runs in the background, next to the requests."""

    def start(self) -> None: ...

    def stop(self) -> None: ...


def _background(services: Services) -> tuple[_Part, ...]:
    stores, roster, watch = services.stores, services.fleet.roster, services.watch

    def sweep() -> None:
        """End cancelled and late jobs, and free the chunks of dead workers; only workers send chunks again."""
        watch.metrics.swept(services.sweeper.sweep())

    def shrink() -> None:
        """Let the disk have what deleted jobs and vectors have left."""
        stores.db.shrink()

    def sample() -> None:
        watch.throughput.sample(roster.recently_live(), hits_here=watch.metrics.answered)

    return (
        BatchRunner(services),
        WebhookSender(services.settings, stores.jobs, stores.webhooks),
        # Workers do these two as well; the API does them in case no worker is left.
        Repeating("failover", services.fleet.failover.run, every_s=BEAT_S),
        Repeating("requests", services.fleet.care.once, every_s=LOOK_S),
        Repeating("sweep", sweep, every_s=BEAT_S),
        Repeating("owner of Redis", services.fleet.redis_owner.renew, every_s=RENEW_S),
        Repeating("cache size", watch.readings.count_cache, every_s=COUNT_CACHE_S, at_once=True),
        Repeating("use of keys", stores.key_use.write, every_s=_WRITE_USE_S),
        Repeating("use of spaces", stores.space_use.write, every_s=_WRITE_USE_S),
        Repeating("free pages", shrink, every_s=BEAT_S),
        Repeating("throughput", sample, every_s=BEAT_S),
        Repeating("ended jobs", lambda: watch.metrics.ended(watch.ended_jobs.new()), every_s=_COUNT_JOBS_S),
        Repeating("rates", lambda: watch.metrics.take_rates(roster.recently_live()), every_s=BEAT_S),
    )
