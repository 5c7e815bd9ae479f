"""How a route gets its services."""

from typing import Annotated, cast

from fastapi import Depends, Request

from semel.api.services import Services


def services_of(request: Request) -> Services:
    """Return the services of the running application.

    The busiest routes call this themselves: each dependency that FastAPI resolves takes a twentieth of a cache hit.
    """
    return cast(Services, request.app.state.services)


async def _services(request: Request) -> Services:
    return services_of(request)  # a coroutine, because FastAPI would run a plain function in a thread


ServicesDep = Annotated[Services, Depends(_services)]
"""The services, for all other routes."""
