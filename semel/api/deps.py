"""The dependency through which a route gets its services."""

from typing import Annotated, cast

from fastapi import Depends, Request

from semel.api.services import Services


async def get_services(request: Request) -> Services:
    """Return the services of the running application.

    A coroutine, because FastAPI would run a plain function in a thread, which costs a tenth of a cache hit.
    """
    return cast(Services, request.app.state.services)


ServicesDep = Annotated[Services, Depends(get_services)]
