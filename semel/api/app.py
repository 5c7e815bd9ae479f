"""The FastAPI application."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio.to_thread
from fastapi import FastAPI
from fastapi.responses import RedirectResponse

from semel import __version__
from semel.api.access import load_keys
from semel.api.background import Repeating
from semel.api.batch.runner import BatchRunner
from semel.api.body_limit import BodyLimit
from semel.api.metrics import COUNT_CACHE_S, HttpMetrics
from semel.api.openapi import document
from semel.api.problems import add_problem_handlers
from semel.api.request_id import RequestId
from semel.api.routes import batches, cache, cohere, embeddings, files, health, jobs, models, rerank, tei
from semel.api.routes import metrics as metrics_route
from semel.api.services import build_services
from semel.api.webhooks import WebhookSender
from semel.settings import Settings
from semel.tasks.roster import BEAT_S

_THREADS = 200
"""A request that waits for a device holds a thread; anyio's default of 40 would block the hits behind them."""


def create_app(settings: Settings) -> FastAPI:
    """The API on these settings. Raises UnavailableError at start-up when the database does not answer."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        anyio.to_thread.current_default_thread_limiter().total_tokens = _THREADS
        services = app.state.services = build_services(settings)
        # Workers watch over pools and jobs, too; the API does when there is none left.
        failover = Repeating("failover", services.failover.run, every_s=BEAT_S)
        metrics = services.metrics
        metrics.watch(services)
        background = (
            BatchRunner(services),
            WebhookSender(services),
            failover,
            Repeating("sweep", services.sweep, every_s=BEAT_S),
            Repeating("cache size", lambda: metrics.count_cache(services), every_s=COUNT_CACHE_S),
            Repeating("rates", lambda: metrics.look_at_rates(services), every_s=BEAT_S),
        )
        for part in background:
            part.start()
        yield
        for part in background:
            part.stop()
        services.close()

    app = FastAPI(
        title="semel",
        version=__version__,
        summary="Every text is embedded once.",
        lifespan=lifespan,
    )
    app.state.api_keys = load_keys(settings)
    app.state.max_body_bytes = settings.max_body_bytes
    for module in (embeddings, files, batches, jobs, cache, models, rerank, cohere, tei, health, metrics_route):
        app.include_router(module.router)
    add_problem_handlers(app)
    app.openapi = lambda: document(app)  # type: ignore[method-assign]  # FastAPI's own way to change it
    app.add_middleware(BodyLimit, max_bytes=settings.max_body_bytes)
    app.add_middleware(RequestId)
    app.add_middleware(HttpMetrics, answered=lambda *told: app.state.services.metrics.answered(*told))

    @app.get("/", include_in_schema=False)
    def to_docs() -> RedirectResponse:
        return RedirectResponse("/docs")

    return app
