"""Protection of a server without API keys from websites.

Such a server trusts every program on its machine, but not the websites that people visit there. A page can send a form
to any address, although it cannot read the answer (cross-site request forgery). The owner of a website can also let
its name resolve to this server's address, so that the browser takes the server for a part of the website (DNS
rebinding). Browsers reveal both in headers that no script can change. On a server with keys neither works, because the
page has no key.
"""

import ipaddress
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import urlsplit

from fastapi import Request

from semel.errors import ForeignPageError
from semel.settings import Settings
from semel.values.address import is_loopback

_READING = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods of a link that another website may have. A page may not load these itself: it would only keep us busy."""


@dataclass(frozen=True)
class OwnNames:
    """The host names that the server answers to, in addition to localhost and every IP address.

    Attributes:
        names: in lower case.
        any: answer to every name: the server listens on a public address and its names are not configured.
    """

    names: frozenset[str]
    any: bool

    @classmethod
    def of(cls, settings: Settings) -> "OwnNames":
        """Read the names from `allowed_hosts` and `host` of the settings."""
        names = frozenset(name.strip().lower() for name in settings.allowed_hosts.split(",") if name.strip())
        return cls(names, any=not (names or is_loopback(settings.host)))


def refuse_foreign_pages(request: Request, own: OwnNames) -> None:
    """Accept requests from programs and from pages of this server.

    Sources: https://www.w3.org/TR/fetch-metadata/, and RFC 6454 for browsers that do not send those headers.

    Raises:
        ForeignPageError: another website sends this request.
    """
    host = request.headers.get("host")
    if host and not own.any and not is_ours(host, own.names):
        raise ForeignPageError(
            f"a server without API keys answers to localhost and to IP addresses, not to {host!r}: set "
            "SEMEL_API_KEYS, or add the name to SEMEL_ALLOWED_HOSTS"
        )
    if _crosses(request) and not _is_followed_link(request):
        raise ForeignPageError(
            "this request comes from a page of another website; a server without API keys accepts requests only from "
            "its own page and from programs: set SEMEL_API_KEYS, and send a key"
        )


@lru_cache(maxsize=64)
def is_ours(host: str, names: frozenset[str]) -> bool:
    """Whether a host header names this server. IP addresses and localhost always do: no DNS server can rebind them.

    It does not use `request.url.hostname`, which is the server's own address when the header is malformed.
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
