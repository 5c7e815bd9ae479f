"""The page's event stream, and the inventory of this machine."""

from typing import Any

from fastapi import Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

from semel.api.deps import ServicesDep
from semel.api.edge.access import sees
from semel.api.edge.keys import Scope
from semel.api.edge.traits import DialectRouter, untraced
from semel.api.jobs.events import event_stream

router = DialectRouter(tags=["Health"], needs=Scope.READ)


class DeviceObject(BaseModel):
    """A device, and whether the API's machine can use it; `why` gives the reason, or how to make it usable."""

    name: str
    usable: bool
    why: str
    software: bool = Field(description="Whether it imitates a GPU on the CPU.")


class Inventory(BaseModel):
    """The devices and models of the API's machine. Workers may run on other machines."""

    devices: list[DeviceObject]
    models: list[dict[str, Any]] = Field(description="The configured models, as 'semel models --json' prints them.")


@router.get(
    "/v1/events",
    response_class=StreamingResponse,
    responses={200: {"content": {"text/event-stream": {}}}},
)
@untraced
def get_events(request: Request) -> Response:
    """Stream server-sent events until the client disconnects. The server reads once per second for all clients.

    `history` comes once: the throughput so far, in texts per second by outcome. Then come, whenever they change:
    `overview` (pools, queues, counts of jobs, the last throughput, the totals of the cache, readiness), `jobs` (open
    and newest jobs with their rate and the seconds left), and `trouble` when a part does not answer.

    The jobs and their counts are those of the caller's namespace; an administrator sees all.
    """
    namespace = sees(request) if request.app.state.api_keys.has_namespaces else None
    return event_stream(request.app.state.lives.of(namespace).events())


@router.get("/v1/inventory")
async def get_inventory(services: ServicesDep) -> Inventory:
    """List the devices and configured models of the API's machine, with what is missing and how to get it.

    The first call takes seconds; the result is kept for some seconds.
    """
    found = await services.watch.machine.look()
    return Inventory.model_validate({"devices": found.devices, "models": found.models})
