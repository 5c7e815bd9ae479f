"""Traits are declared next to a route, and found by method and path."""

import re

import pytest
from fastapi import APIRouter, FastAPI

from semel.api.edge.keys import Scope
from semel.api.edge.traits import DialectRouter, RouteTable, Traits, needs, public, streams_body, untraced
from tests.support.service import Service

tei = DialectRouter(needs=None, dialect="tei")
own = DialectRouter(needs=None)
guarded = DialectRouter(needs=Scope.READ)
plain = APIRouter()


@tei.post("/embed")
def embed() -> None:
    """A route of a dialect."""


@own.get("/two")
@own.get("/one")
@untraced
def both() -> None:
    """An endpoint with two paths."""


@own.put("/items/{item}")
@streams_body
@untraced
async def put_item(item: str) -> None:
    """A route with a parameter and two marks."""


@own.get("/shared")
def read_shared() -> None:
    """A path that two dialects share."""


@tei.post("/shared")
def write_shared() -> None:
    """A path that two dialects share."""


@guarded.get("/read")
def read() -> None:
    """A route with the scope of its router."""


@guarded.post("/change")
@needs(Scope.ADMIN)
@streams_body
def change() -> None:
    """A route with a scope of its own."""


@guarded.get("/probe")
@public
def probe() -> None:
    """A route without a key."""


@plain.get("/plain")
def unmarked() -> None:
    """A route of FastAPI's own router."""


TABLE = RouteTable([tei, own, guarded, plain])


@pytest.mark.parametrize(
    ("method", "path", "traits"),
    [
        ("POST", "/embed", Traits("tei")),
        ("GET", "/one", Traits(untraced=True)),
        ("GET", "/two", Traits(untraced=True)),
        ("PUT", "/items/{item}", Traits(streams_body=True, untraced=True)),
        ("GET", "/read", Traits(needs=Scope.READ)),
        ("POST", "/change", Traits(needs=Scope.ADMIN, streams_body=True)),
        ("GET", "/probe", Traits(needs=None)),
        ("GET", "/plain", Traits()),
        ("GET", "/embed", Traits()),
        ("PUT", "/items/7", Traits()),
        ("GET", "/unknown", Traits()),
    ],
)
def test_a_route_has_the_traits_of_its_declaration(method: str, path: str, traits: Traits) -> None:
    assert TABLE.traits(method, path) == traits


@pytest.mark.parametrize(
    ("path", "dialect"), [("/embed", "tei"), ("/shared", "tei"), ("/one", "openai"), ("/unknown", "openai")]
)
def test_the_dialect_of_a_path_holds_for_every_method(path: str, dialect: str) -> None:
    assert TABLE.dialect(path) == dialect


def test_untraced_paths_are_patterns_that_match_parameters() -> None:
    patterns = [re.compile(pattern) for pattern in TABLE.untraced()]
    matched = [
        path for path in ("/one", "/two", "/items/7", "/embed", "/plain") if any(p.search(path) for p in patterns)
    ]
    assert matched == ["/one", "/two", "/items/7"]


def test_the_marks_leave_the_endpoint_as_it_was() -> None:
    def endpoint(n: int) -> int:
        return n + 1

    assert streams_body(untraced(endpoint)) is endpoint
    assert endpoint(1) == 2


def test_a_dialect_router_serves_its_routes() -> None:
    app = FastAPI()
    app.include_router(tei)
    assert "post" in app.openapi()["paths"]["/embed"]


# The API's own table


def declared(api: Service, trait: str) -> set[str]:
    """METHOD PATH of the API's routes with a trait."""
    table: RouteTable = api.app.state.route_table
    return {f"{method} {path}" for (method, path), traits in table._traits.items() if getattr(traits, trait)}


def test_routes_that_read_their_own_body(api: Service) -> None:
    assert declared(api, "streams_body") == {
        "POST /v1/jobs", "POST /v1/jobs/estimate", "POST /v1/files", "POST /v1/uploads/{upload_id}/parts",
        "PUT /v1/cache/vectors",
    }  # fmt: skip


def test_routes_that_are_not_traced(api: Service) -> None:
    assert declared(api, "untraced") == {
        "GET /health", "GET /health/", "GET /health/live", "GET /health/ready", "GET /health/backends", "GET /metrics",
        "GET /v1/events", "GET /page/{name}",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("dialect", "paths"),
    [
        ("cohere", {"/v1/rerank", "/v2/rerank", "/v1/embed", "/v2/embed"}),
        (
            "tei",
            {
                "/",
                "/embed",
                "/embed_sparse",
                "/rerank",
                "/predict",
                "/similarity",
                "/tokenize",
                "/info",
                "/health",
                "/health/",
            },
        ),
        ("ollama", {"/api/embed", "/api/embeddings", "/api/tags", "/api/show", "/api/version"}),
    ],
)
def test_paths_of_a_dialect(api: Service, dialect: str, paths: set[str]) -> None:
    table: RouteTable = api.app.state.route_table
    assert {path for _, path in table._traits if table.dialect(path) == dialect} == paths
