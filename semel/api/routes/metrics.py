"""GET /metrics, for Prometheus."""

from fastapi import Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from semel.api.deps import ServicesDep
from semel.api.edge.keys import Scope
from semel.api.edge.traits import DialectRouter, untraced
from semel.api.watch.threads import for_watchers

router = DialectRouter(tags=["Health"], needs=Scope.READ)


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
@untraced
async def metrics(services: ServicesDep) -> Response:
    """Return the metrics of this API; docs/reference/metrics.md describes each. Workers serve their own."""
    text = await for_watchers(lambda: generate_latest(services.watch.metrics.registry))
    return Response(text, media_type=CONTENT_TYPE_LATEST)
