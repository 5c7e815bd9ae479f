"""What goes on: a stream for the page, and what this machine has."""

from typing import Any

from fastapi import Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

from semel.api.deps import ServicesDep
from semel.api.edge.access import MAY_READ
from semel.api.edge.traits import DialectRouter, untraced
from semel.api.jobs.events import event_stream

router = DialectRouter(tags=["Health"], dependencies=MAY_READ)


class DeviceObject(BaseModel):
    """A device that the API's machine has or lacks, and why, or how to get it."""

    name: str
    usable: bool
    why: str
    software: bool = Field(description="It imitates a GPU on the CPU.")


class Inventory(BaseModel):
    """What the machine of this API has; workers may run on others."""

    devices: list[DeviceObject]
    models: list[dict[str, Any]] = Field(description="The configured models, as 'semel models --json' tells of them.")


@router.get(
    "/v1/events",
    response_class=StreamingResponse,
    responses={200: {"content": {"text/event-stream": {}}}},
)
@untraced
def get_events(request: Request) -> Response:
    """Server-sent events for as long as somebody listens, one reading a second for all who do.

    `history` once: points of texts a second by outcome. Then, when they change: `overview` (pools, queues, counts of
    jobs, the last point, the cache's totals, readiness), `jobs` (open and newest ones with rate and seconds left),
    and `trouble` when a part does not answer.
    """
    return event_stream(request.app.state.live.events())


@router.get("/v1/inventory")
async def get_inventory(services: ServicesDep) -> Inventory:
    """Devices and configured models of the API's machine, with what is missing and how to get it.

    Looking takes seconds; what was found is kept for some seconds.
    """
    found = await services.watch.machine.look()
    return Inventory.model_validate({"devices": found.devices, "models": found.models})
