"""/health: is this process alive, can it do its work, who does the work."""

from fastapi import Response

from semel.api.deps import ServicesDep
from semel.api.edge.access import MAY_READ
from semel.api.edge.traits import DialectRouter, untraced
from semel.api.watch.pools import Pool, pools
from semel.api.watch.readiness import Readiness, readiness

router = DialectRouter(tags=["Health"])


@router.get("/health/live")
@untraced
async def live() -> dict[str, str]:
    """This process answers, however many requests wait for its threads."""
    return {"status": "ok"}


@router.get("/health/ready", response_model=Readiness, responses={503: {"model": Readiness}})
@untraced
def ready(services: ServicesDep, response: Response) -> Readiness:
    """Every part answers; else 503, with the failing part named."""
    answer = readiness(services.pings)
    response.status_code = 200 if answer.ready else 503
    return answer


@router.get("/health/backends", dependencies=MAY_READ)
@untraced
def backends(services: ServicesDep) -> list[Pool]:
    """The device pools: status, load, latency and workers of each; devices that were found unfit among them."""
    return pools(services.fleet.roster.live(), services.fleet.roster.failed())
