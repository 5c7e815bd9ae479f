"""Access: whether the key of a request may do what its route does.

Without any key in the settings every caller may do everything, which `semel serve` allows on a loopback address only.
"""

from fastapi import Request

from semel.api.edge.foreign_pages import refuse_foreign_pages
from semel.api.edge.keys import ApiKey, KeyRing, Scope, find_key
from semel.errors import ForbiddenError, UnauthorizedError
from semel.values.job import NOBODY, Submitter


def admit(request: Request, needed: Scope) -> None:
    """Check the key of a request against what its route needs; sets `request.state.scope` and `.submitter`.

    Raises:
        UnauthorizedError: the request has no key, or an unknown one.
        ForbiddenError: the scope of the key is too small.
        ForeignPageError: the server has no keys, and another website sends the request.
    """
    keys = _keys(request)
    if not keys:
        refuse_foreign_pages(request, request.app.state.own_names)
        request.state.scope, request.state.submitter, request.state.key = Scope.ADMIN, NOBODY, "nobody"
        return
    presented = _presented(request)
    if not presented:
        raise UnauthorizedError("this server needs an API key: send 'Authorization: Bearer KEY'")
    known = find_key(keys, presented)
    if known is None:
        raise UnauthorizedError("this server does not know this API key; check it, or ask the operator for one")
    if known.has_expired:
        raise UnauthorizedError("this API key has expired; ask the operator for a new one")
    if known.scope < needed:
        raise ForbiddenError(
            f"this API key has the scope '{known.scope.name.lower()}'; this request needs '{needed.name.lower()}'"
        )
    request.state.scope, request.state.submitter, request.state.key = known.scope, known.submitter, known.shown
    request.app.state.services.stores.key_use.used(known.submitter.owner)


def _keys(request: Request) -> tuple[ApiKey, ...]:
    ring: KeyRing = request.app.state.api_keys
    return ring.now()


def _presented(request: Request) -> str | None:
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if kind.lower() == "bearer" else request.headers.get("x-api-key")


def may_see_details(request: Request) -> bool:
    """Whether the caller of a public route has a key of this server, or the server needs none."""
    keys = _keys(request)
    known = find_key(keys, _presented(request) or "")
    return not keys or (known is not None and not known.has_expired)


def submitter_of(request: Request) -> Submitter:
    """Who sends an admitted request."""
    submitter: Submitter = request.state.submitter
    return submitter


def sees(request: Request) -> str | None:
    """The namespace whose jobs exist for the caller of an admitted request; None for those of all."""
    return None if may(request, Scope.ADMIN) else submitter_of(request).namespace


def may(request: Request, scope: Scope) -> bool:
    """Whether the key of an admitted request also has this scope."""
    return bool(request.state.scope >= scope)
