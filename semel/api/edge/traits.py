"""The traits of a route, declared next to the route: who may use it, its dialect, how it reads its body."""

from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, HTTPException, Request, Response
from fastapi.routing import APIRoute
from starlette.types import Message, Receive, Send
from starlette.types import Scope as AsgiScope

from semel.api.dialects.errors import Dialect
from semel.api.edge.access import admit
from semel.api.edge.keys import Scope
from semel.api.edge.parsing import TooManyValuesError, parse_json
from semel.log import get_log

audit = get_log("audit")

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])

T = TypeVar("T")


@dataclass(frozen=True)
class Traits:
    """The traits of a route.

    Attributes:
        dialect: the shape of its errors.
        needs: the scope of the key that it needs; None for a route without data, which needs no key.
        streams_body: it reads its body while it arrives, and limits it itself.
        untraced: its requests are not traced: machines send them every few seconds, or they last for minutes.
        direct: the endpoint receives the request and returns a response, without FastAPI's work around it.
        audited: the log records who sent each request: it changes or deletes something.
    """

    dialect: Dialect = "openai"
    needs: Scope | None = None
    streams_body: bool = False
    untraced: bool = False
    direct: bool = False
    audited: bool = False


_ORDINARY = Traits()


LARGE_BODY_BYTES = 64 << 10
"""Parsing a larger body takes long enough for a thread: the event loop must go on for all other requests."""

_PARSERS = CapacityLimiter(1)
"""Threads that parse large bodies. A parse of 4 MiB of lists holds the interpreter for a tenth of a second; if many
took turns, everybody else would wait for all of them."""


async def parse_aside(parse: Callable[[], T]) -> T:
    """Parse a large body in a thread, after those that came before. Raises what `parse` raises."""
    return await to_thread.run_sync(parse, limiter=_PARSERS)


class _ThreadedRequest(Request):
    """A request that parses a large JSON body in a thread."""

    async def json(self) -> Any:
        """The parsed body. Raises as `parse_json`; HTTPException for too many values, as FastAPI hides other errors."""
        if len(await self.body()) > LARGE_BODY_BYTES and not hasattr(self, "_json"):
            try:
                self._json = await parse_aside(partial(parse_json, await self.body()))
            except TooManyValuesError as error:
                raise HTTPException(error.status, str(error)) from None
        return await super().json()


class _GuardedRoute(APIRoute):
    """A route that checks the key before anything else: a caller without one cannot make the server read a body."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's work around the endpoint; it parses a large body in a thread."""
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            return await handler(_ThreadedRequest(request.scope, request.receive))

        return handle

    async def handle(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Check the key; then run a direct endpoint, or leave the request to FastAPI."""
        traits: Traits = self.endpoint.traits  # type: ignore[attr-defined]
        request, takes_method = Request(scope, receive, send), scope["method"] in (self.methods or ())
        if takes_method and traits.needs is not None:
            admit(request, traits.needs)
        if takes_method and traits.audited:
            send = _noting(request, send)
        if takes_method and traits.direct:
            response: Response = await self.endpoint(request)
            await response(scope, receive, send)
        else:
            await super().handle(scope, receive, send)


class DialectRouter(APIRouter):
    """A router whose routes speak one dialect.

    Args:
        needs: the scope of the key that its routes need, unless a route has the decorator `needs` or `public`.
        dialect: the shape of the errors of its routes.
        options: passed on to `APIRouter`.
    """

    def __init__(self, *, needs: Scope | None, dialect: Dialect = "openai", **options: Any) -> None:
        super().__init__(route_class=_GuardedRoute, **options)
        self._dialect = dialect
        self._needs = needs

    def add_api_route(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        """Add a route, and store its traits on the endpoint, with those of this router."""
        given: dict[str, Any] = getattr(endpoint, "given_traits", {})
        endpoint.traits = Traits(**{"dialect": self._dialect, "needs": self._needs} | given)  # type: ignore[attr-defined]
        super().add_api_route(path, endpoint, **options)


def needs(scope: Scope) -> Callable[[Endpoint], Endpoint]:
    """Let an endpoint need another scope than its router says. Put this decorator below the route's own."""
    return lambda endpoint: _given(endpoint, needs=scope)


def public(endpoint: Endpoint) -> Endpoint:
    """Mark an endpoint that needs no key. Put this decorator below the route's own."""
    return _given(endpoint, needs=None)


def streams_body(endpoint: Endpoint) -> Endpoint:
    """Mark an endpoint that reads its body while it arrives. Put this decorator below the route's own."""
    return _given(endpoint, streams_body=True)


def direct(endpoint: Endpoint) -> Endpoint:
    """Mark an endpoint that receives the request alone and returns a response. Put this decorator below the route's.

    FastAPI's parameters, dependencies and models take half of the time of a cache hit. The endpoint reads what it needs
    through `semel.api.edge.reading`.
    """
    return _given(endpoint, direct=True)


def audited(endpoint: Endpoint) -> Endpoint:
    """Mark an endpoint that changes or deletes something. Put this decorator below the route's own."""
    return _given(endpoint, audited=True)


def _noting(request: Request, send: Send) -> Send:
    """`send` that writes a line of the log when the answer begins."""

    async def noting(message: Message) -> None:
        if message["type"] == "http.response.start":
            state = request.state
            audit.info(
                f"{request.method} {request.url.path}",
                key=state.key,
                namespace=state.submitter.namespace,
                status=message["status"],
                request=getattr(state, "request_id", ""),
            )
        await send(message)

    return noting


def untraced(endpoint: Endpoint) -> Endpoint:
    """Mark an endpoint whose requests are not traced. Put this decorator below the route's own."""
    return _given(endpoint, untraced=True)


def _given(endpoint: Endpoint, **traits: Any) -> Endpoint:
    endpoint.given_traits = getattr(endpoint, "given_traits", {}) | traits  # type: ignore[attr-defined]
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
