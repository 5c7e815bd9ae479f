"""What is special about a route, declared where the route is: its dialect, its body, its traces."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, TypeVar

from fastapi import APIRouter
from fastapi.routing import APIRoute

Dialect: TypeAlias = Literal["openai", "cohere", "tei"]
"""Whose errors a route answers with; semel's own routes have OpenAI's."""

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])


@dataclass(frozen=True)
class Traits:
    """What is special about a route.

    Attributes:
        streams_body: it reads its body as it arrives, and bounds it itself.
        untraced: traces leave its requests out: machines send them every few seconds, or they last for minutes.
    """

    dialect: Dialect = "openai"
    streams_body: bool = False
    untraced: bool = False


_ORDINARY = Traits()


class DialectRouter(APIRouter):
    """A router whose routes speak one dialect.

    Args:
        options: as for `APIRouter`.
    """

    def __init__(self, *, dialect: Dialect = "openai", **options: Any) -> None:
        super().__init__(**options)
        self._dialect = dialect

    def add_api_route(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        """Add a route; its endpoint gets the dialect of this router."""
        marks = {name: True for name in ("streams_body", "untraced") if hasattr(endpoint, name)}
        endpoint.traits = Traits(self._dialect, **marks)  # type: ignore[attr-defined]
        super().add_api_route(path, endpoint, **options)


def streams_body(endpoint: Endpoint) -> Endpoint:
    """Mark an endpoint that reads its body as it arrives; goes below the route's own decorator."""
    endpoint.streams_body = True  # type: ignore[attr-defined]
    return endpoint


def untraced(endpoint: Endpoint) -> Endpoint:
    """Mark an endpoint whose requests traces leave out; goes below the route's own decorator."""
    endpoint.untraced = True  # type: ignore[attr-defined]
    return endpoint


class RouteTable:
    """The traits of every route of these routers, by method and path."""

    def __init__(self, routers: Iterable[APIRouter]) -> None:
        self._routes = [route for router in routers for route in router.routes if isinstance(route, APIRoute)]
        self._traits = {
            (method, route.path): getattr(route.endpoint, "traits", _ORDINARY)
            for route in self._routes
            for method in route.methods or ()
        }

    def traits(self, method: str, path: str) -> Traits:
        """The traits of a route without parameters in its path; those of an ordinary route for any other."""
        return self._traits.get((method, path), _ORDINARY)

    def dialect(self, path: str) -> Dialect:
        """The dialect that is spoken on a path, whatever the method: a wrong method gets an error, too."""
        spoken = {traits.dialect for (_, known), traits in self._traits.items() if known == path}
        return next((dialect for dialect in spoken if dialect != "openai"), "openai")

    def untraced(self) -> list[str]:
        """Path patterns of the routes that traces leave out, as regular expressions."""
        return [route.path_regex.pattern.strip("^$") for route in self._routes if self._of(route).untraced]

    def _of(self, route: APIRoute) -> Traits:
        traits: Traits = getattr(route.endpoint, "traits", _ORDINARY)
        return traits
