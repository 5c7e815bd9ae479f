"""API keys: who may read, who may submit work, who may change the server.

Keys are compared as SHA-256 digests in constant time; the plain ones are forgotten once they are read. Without any
key in the settings everybody may do everything, which `semel serve` allows on a loopback address only.
"""

import hashlib
import hmac
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

from fastapi import Depends, Request

from semel.api.edge.foreign_pages import refuse_foreign_pages
from semel.errors import BadInputError, ForbiddenError, UnauthorizedError
from semel.settings import Settings


class Scope(IntEnum):
    """What a key allows; each includes those before it.

    READ: look at jobs, models and results, not at texts. SUBMIT: also embed, rerank, submit and cancel. ADMIN: also
    what changes the server for others.
    """

    READ = 1
    SUBMIT = 2
    ADMIN = 3


@dataclass(frozen=True)
class ApiKey:
    """SHA-256 of a key, and what it allows."""

    digest: bytes
    scope: Scope


def load_keys(settings: Settings) -> tuple[ApiKey, ...]:
    """The keys of `SEMEL_API_KEYS` (plain, `KEY` or `KEY:SCOPE`, with commas between) and of `SEMEL_API_KEYS_FILE`.

    A line of the file is `SHA256-IN-HEX SCOPE`; what follows a # is a remark.

    Raises:
        BadInputError: no such file, no key in what is set, a line that is no key, an unknown scope.
    """
    keys = [_plain(part.strip()) for part in settings.api_keys.get_secret_value().split(",") if part.strip()]
    if settings.api_keys_file is not None:
        keys += _from_file(settings.api_keys_file)
    if not keys and (settings.api_keys.get_secret_value() or settings.api_keys_file is not None):
        raise BadInputError(
            "SEMEL_API_KEYS or SEMEL_API_KEYS_FILE is set and holds no key: that would let everybody in"
        )
    return tuple(keys)


def _plain(text: str) -> ApiKey:
    key, colon, scope = text.rpartition(":")
    where = "SEMEL_API_KEYS"
    return ApiKey(_digest(key), _scope(scope, where)) if colon else ApiKey(_digest(text), Scope.ADMIN)


def _from_file(path: Path) -> list[ApiKey]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInputError(f"SEMEL_API_KEYS_FILE {path} cannot be read: {error}") from None
    keys = []
    for number, line in enumerate(lines, start=1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        where = f"{path}, line {number}"
        try:
            digest = bytes.fromhex(words[0])
        except ValueError:
            digest = b""
        if len(words) != 2 or len(digest) != hashlib.sha256().digest_size:
            raise BadInputError(f"{where}: a line is the SHA-256 of a key in hex, and a scope; see 'semel key'")
        keys.append(ApiKey(digest, _scope(words[1], where)))
    return keys


def file_line(key: str, scope: str) -> str:
    """The line of `SEMEL_API_KEYS_FILE` for a key. Raises BadInputError for an unknown scope."""
    return f"{_digest(key).hex()} {_scope(scope, '--scope').name.lower()}"


def _scope(name: str, where: str) -> Scope:
    try:
        return Scope[name.upper()]
    except KeyError:
        known = ", ".join(scope.name.lower() for scope in Scope)
        raise BadInputError(f"{where}: the scope of a key is one of {known}") from None  # no echo: it may be a key


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def scope_of(keys: tuple[ApiKey, ...], presented: str) -> Scope | None:
    """What a presented key allows; None for an unknown one. Looks at every key, whichever matches."""
    digest, found = _digest(presented), None
    for key in keys:
        if hmac.compare_digest(digest, key.digest):
            found = key.scope
    return found


def _needs(scope: Scope) -> Any:
    """A dependency that lets a request pass when its key allows this; `request.state.scope` is what it allows.

    Raises:
        UnauthorizedError: no key, or an unknown one.
        ForbiddenError: a key that allows less.
        ForeignPageError: without keys, a website sends this.
    """

    async def check(request: Request) -> None:
        keys: tuple[ApiKey, ...] = request.app.state.api_keys
        if not keys:
            refuse_foreign_pages(request, request.app.state.own_names)
            request.state.scope = Scope.ADMIN
            return
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        presented = token.strip() if kind.lower() == "bearer" else request.headers.get("x-api-key")
        if not presented:
            raise UnauthorizedError("this server needs an API key: send 'Authorization: Bearer KEY'")
        allowed = scope_of(keys, presented)
        if allowed is None:
            raise UnauthorizedError("this API key is unknown here")
        if allowed < scope:
            raise ForbiddenError(f"this API key may {allowed.name.lower()}; it takes one that may {scope.name.lower()}")
        request.state.scope = allowed

    return Depends(check)


def may(request: Request, scope: Scope) -> bool:
    """Whether a request that passed may do this, too."""
    return bool(request.state.scope >= scope)


MAY_READ = [_needs(Scope.READ)]
MAY_SUBMIT = [_needs(Scope.SUBMIT)]
MAY_ADMINISTER = [_needs(Scope.ADMIN)]
