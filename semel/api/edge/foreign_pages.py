"""A server without API keys trusts this machine; a website that somebody on it visits is not this machine.

A page can send a form to any address, without leave to read the answer (cross-site request forgery), and its owner can
give the page's own name our address, which makes us part of its site (DNS rebinding). A browser tells of both in
headers that no script can change. With keys neither works, because the page has none.
"""

import ipaddress
from dataclasses import dataclass
from urllib.parse import urlsplit

from fastapi import Request

from semel.errors import ForeignPageError
from semel.settings import Settings

_READING = frozenset({"GET", "HEAD", "OPTIONS"})
"""What such a page may lead a visitor to. It may not load it by itself: it would learn nothing, and keep us busy."""


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address. A name other than localhost counts as public."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@dataclass(frozen=True)
class OwnNames:
    """By which names the server may be called; those of an address, and localhost, always are its own.

    Attributes:
        any: on a public address nobody knows them, unless somebody says them.
    """

    names: frozenset[str]
    any: bool

    @classmethod
    def of(cls, settings: Settings) -> "OwnNames":
        names = frozenset(name.strip().lower() for name in settings.allowed_hosts.split(",") if name.strip())
        return cls(names, any=not (names or is_loopback(settings.host)))


def refuse_foreign_pages(request: Request, own: OwnNames) -> None:
    """Let programs pass, and pages of this server.

    Raises:
        ForeignPageError: a website sends this. Sources: https://www.w3.org/TR/fetch-metadata/, RFC 6454 for browsers
            without that.
    """
    host = request.headers.get("host")
    if host and not own.any and not _is_ours(host, own.names):
        raise ForeignPageError(
            f"without API keys this server answers as localhost, not as {host!r}: set SEMEL_API_KEYS, or say the "
            "name in SEMEL_ALLOWED_HOSTS"
        )
    if _crosses(request) and not _is_followed_link(request):
        raise ForeignPageError(
            "a page of another website sends this, and without API keys this server takes it from its own page and "
            "from programs only: set SEMEL_API_KEYS, and send one"
        )


def _is_ours(host: str, names: frozenset[str]) -> bool:
    """An address can be rebound by nobody; nor can localhost, which is resolved without asking.

    Not `request.url.hostname`: that is our own address when the header is odd.
    """
    name = ""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        ipaddress.ip_address(name)
    except ValueError:
        return name == "localhost" or name.endswith(".localhost") or name in names
    return True


def _is_followed_link(request: Request) -> bool:
    return request.method in _READING and request.headers.get("sec-fetch-dest") == "document"


def _crosses(request: Request) -> bool:
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    if site is not None:
        return site not in ("same-origin", "none")
    return origin is not None and origin.partition("://")[2] != request.headers.get("host")
