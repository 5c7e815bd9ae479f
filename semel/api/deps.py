"""How a route gets its services."""

from typing import Annotated, cast

from fastapi import Depends, Request

from semel.api.services import Services


def get_services(request: Request) -> Services:
    return cast(Services, request.app.state.services)


ServicesDep = Annotated[Services, Depends(get_services)]
