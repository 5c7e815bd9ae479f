"""/health: whether this process is alive, whether it can work, and the workers behind it."""

from fastapi import Request, Response

from semel.api.deps import ServicesDep
from semel.api.edge.access import may_see_details
from semel.api.edge.keys import Scope
from semel.api.edge.traits import DialectRouter, public, untraced
from semel.api.watch.pools import Pool, pools
from semel.api.watch.readiness import Readiness, readiness

router = DialectRouter(tags=["Health"], needs=Scope.READ)


@router.get("/health/live")
@public
@untraced
async def live() -> dict[str, str]:
    """Return 200 as long as this process is alive, however many requests wait for its threads."""
    return {"status": "ok"}


@router.get("/health/ready", response_model=Readiness, responses={503: {"model": Readiness}})
@public
@untraced
def ready(request: Request, services: ServicesDep, response: Response) -> Readiness:
    """Return 200 if every part answers, else 503. With a key, the answer has the reason for each part that does not."""
    answer = readiness(services.pings)
    response.status_code = 200 if answer.ready else 503
    return answer if may_see_details(request) else answer.without_reasons()


@router.get("/health/backends")
@untraced
def backends(services: ServicesDep) -> list[Pool]:
    """Return the device pools with their status, load, latency and workers, and devices that failed their self-test."""
    return pools(services.watch.roster.live(), services.watch.roster.failed())
