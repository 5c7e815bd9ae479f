"""How a route gets its services."""

from typing import Annotated, cast

from fastapi import Depends, Request

from semel.api.edge.access import may
from semel.api.edge.keys import Scope
from semel.api.services import Services
from semel.api.tenants import Tenants


def services_of(request: Request) -> Services:
    """Return the services that the caller of an admitted request sees; a public route sees the whole server.

    The busiest routes call this themselves: each dependency that FastAPI resolves takes a twentieth of a cache hit.
    """
    submitter = getattr(request.state, "submitter", None)
    if submitter is None:
        return cast(Services, request.app.state.services)
    tenants: Tenants = request.app.state.tenants
    return tenants.view(submitter, sees_all=may(request, Scope.ADMIN))


async def _services(request: Request) -> Services:
    return services_of(request)  # a coroutine, because FastAPI would run a plain function in a thread


ServicesDep = Annotated[Services, Depends(_services)]
"""The services, for all other routes."""
