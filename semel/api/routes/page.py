"""GET /: a page for people. It has no data of its own: it asks the other routes, with the key that it is given."""

from importlib.resources import files

from fastapi import Response

from semel.api.edge.traits import DialectRouter, untraced
from semel.errors import NotFoundError

router = DialectRouter(include_in_schema=False)

_FOLDER = files("semel.api") / "page"
_PARTS = {part.name for part in _FOLDER.iterdir()}

_KINDS = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}

_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "cache-control": "no-cache",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


@router.get("/")
def page() -> Response:
    """The page; its views are named behind the #."""
    return _file("index.html")


@router.get("/page/{name}")
@untraced
def part(name: str) -> Response:
    """A script, a style sheet or the icon of the page."""
    return _file(name)


def _file(name: str) -> Response:
    kind = _KINDS.get(name.rpartition(".")[2])
    if kind is None or name not in _PARTS:
        raise NotFoundError("part of the page", name)
    return Response((_FOLDER / name).read_bytes(), media_type=f"{kind}; charset=utf-8", headers=_HEADERS)
