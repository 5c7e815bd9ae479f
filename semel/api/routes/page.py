"""GET /: the page. It holds no data and needs no key: it calls the other routes, with the key that a user enters."""

from importlib.resources import files

from fastapi import Response

from semel.api.edge.traits import DialectRouter, untraced
from semel.errors import NotFoundError

router = DialectRouter(needs=None, include_in_schema=False)

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
    """Return the page. Its views are fragments of the URL."""
    return _file("index.html")


@router.get("/page/{name}")
@untraced
def part(name: str) -> Response:
    """Return a script, the style sheet or the icon of the page. Raises NotFoundError."""
    return _file(name)


def _file(name: str) -> Response:
    kind = _KINDS.get(name.rpartition(".")[2])
    if kind is None or name not in _PARTS:
        raise NotFoundError("part of the page", name)
    return Response((_FOLDER / name).read_bytes(), media_type=f"{kind}; charset=utf-8", headers=_HEADERS)
