"""The traits of a route, declared next to the route: its dialect, how it reads its body, whether it is traced."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from fastapi import APIRouter
from fastapi.routing import APIRoute

from semel.api.dialects.errors import Dialect

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])


@dataclass(frozen=True)
class Traits:
    """The traits of a route.

    Attributes:
        dialect: the shape of its errors.
        streams_body: it reads its body while it arrives, and limits it itself.
        untraced: its requests are not traced: machines send them every few seconds, or they last for minutes.
    """

    dialect: Dialect = "openai"
    streams_body: bool = False
    untraced: bool = False


_ORDINARY = Traits()


class DialectRouter(APIRouter):
    """A router whose routes speak one dialect.

    Args:
        dialect: the shape of the errors of its routes.
        options: passed on to `APIRouter`.
    """

    def __init__(self, *, dialect: Dialect = "openai", **options: Any) -> None:
        super().__init__(**options)
        self._dialect = dialect

    def add_api_route(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        """Add a route, and store its traits on the endpoint, with the dialect of this router."""
        marks = {name: True for name in ("streams_body", "untraced") if hasattr(endpoint, name)}
        endpoint.traits = Traits(self._dialect, **marks)  # type: ignore[attr-defined]
        super().add_api_route(path, endpoint, **options)


def streams_body(endpoint: Endpoint) -> Endpoint:
    """Mark an endpoint that reads its body while it arrives. Put this decorator below the route's own."""
    endpoint.streams_body = True  # type: ignore[attr-defined]
    return endpoint


def untraced(endpoint: Endpoint) -> Endpoint:
    """Mark an endpoint whose requests are not traced. Put this decorator below the route's own."""
    endpoint.untraced = True  # type: ignore[attr-defined]
    return endpoint


class RouteTable:
    """The traits of every route of some routers, by method and path."""

    def __init__(self, routers: Iterable[APIRouter]) -> None:
        self._routes = [route for router in routers for route in router.routes if isinstance(route, APIRoute)]
        self._traits = {
            (method, route.path): getattr(route.endpoint, "traits", _ORDINARY)
            for route in self._routes
            for method in route.methods or ()
        }

    def traits(self, method: str, path: str) -> Traits:
        """Return the traits of a route; a path with parameters, or an unknown one, has those of an ordinary route."""
        return self._traits.get((method, path), _ORDINARY)

    def dialect(self, path: str) -> Dialect:
        """Return the dialect of a path, for every method: a wrong method gets an error in that dialect too."""
        dialects = {traits.dialect for (_, known), traits in self._traits.items() if known == path}
        return next((dialect for dialect in dialects if dialect != "openai"), "openai")

    def untraced(self) -> list[str]:
        """Return the path patterns of the routes that are not traced, as regular expressions."""
        return [route.path_regex.pattern.strip("^$") for route in self._routes if self._of(route).untraced]

    def _of(self, route: APIRoute) -> Traits:
        traits: Traits = getattr(route.endpoint, "traits", _ORDINARY)
        return traits
