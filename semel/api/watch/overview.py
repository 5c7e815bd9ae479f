"""The overview that the page shows first: pools, queues, jobs, throughput, cache and readiness."""

from typing import Any

from semel.api.services import Services
from semel.api.watch.pools import pools
from semel.api.watch.queue_states import queue_states
from semel.api.watch.readiness import readiness


def overview(services: Services) -> dict[str, Any]:
    """One reading, ready for JSON. Raises UnavailableError when Redis or the database does not answer."""
    stores, watch = services.stores, services.watch
    live, totals = watch.roster.live(), stores.space_use.totals()
    return {
        "pools": [pool.model_dump() for pool in pools(live, watch.roster.failed())],
        "queues": [queue.model_dump() for queue in queue_states(stores.counts, services.fleet.backlog, live)],
        "jobs": stores.counts.count_by_status(),
        "point": watch.throughput.last(),
        "cache": {"lookups": totals.lookups, "hits": totals.hits, "saved_s": round(totals.saved_s, 1)},
        "ready": readiness(services.pings).model_dump(),
    }
