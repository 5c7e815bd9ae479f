"""API keys: who may read, who may submit work, who may change the server.

Keys are compared as SHA-256 digests in constant time; plain keys are forgotten once they are read. Without any key in
the settings every caller may do everything, which `semel serve` allows on a loopback address only.
"""

import hashlib
import hmac
import math
import re
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from fastapi import Request

from semel.api.edge.foreign_pages import refuse_foreign_pages
from semel.errors import BadInputError, ForbiddenError, UnauthorizedError
from semel.settings import Settings
from semel.values.job import NOBODY, Submitter


class Scope(IntEnum):
    """What a key allows. Each scope includes those before it.

    READ: see jobs, models and results, but no texts. SUBMIT: also embed, rerank, submit and cancel. ADMIN: also change
    the server for others.
    """

    READ = 1
    SUBMIT = 2
    ADMIN = 3


@dataclass(frozen=True)
class ApiKey:
    """The SHA-256 digest of a key, the scope of that key, and its share of a queue next to other keys."""

    digest: bytes
    scope: Scope
    share: float = 1.0

    @property
    def submitter(self) -> Submitter:
        """Who submits with this key."""
        return Submitter(self.digest.hex()[:16], self.share)


def load_keys(settings: Settings) -> tuple[ApiKey, ...]:
    """Read the keys in `SEMEL_API_KEYS` and `SEMEL_API_KEYS_FILE`.

    The setting has plain keys, `KEY`, `KEY:SCOPE` or `KEY:SCOPE:SHARE`, separated by commas. A line of the file is
    `SHA256-IN-HEX SCOPE` or `SHA256-IN-HEX SCOPE SHARE`; a # starts a comment. The share is 1 if it is left out.

    Raises:
        BadInputError: the file cannot be read, a setting is set but holds no key, a line is not a key, or a scope is
            unknown.
    """
    keys = [_plain(part.strip()) for part in settings.api_keys.get_secret_value().split(",") if part.strip()]
    if settings.api_keys_file is not None:
        keys += _from_file(settings.api_keys_file)
    if not keys and (settings.api_keys.get_secret_value() or settings.api_keys_file is not None):
        raise BadInputError(
            "SEMEL_API_KEYS or SEMEL_API_KEYS_FILE is set but holds no key, which would open the server to every "
            "caller: add a key, or unset it"
        )
    return tuple(keys)


def _plain(text: str) -> ApiKey:
    where, share = "SEMEL_API_KEYS", 1.0
    if re.fullmatch(r"[^:]+:[^:]+:[0-9.]+", text):
        text, _, last = text.rpartition(":")
        share = _share(last, where)
    key, colon, scope = text.rpartition(":")
    return ApiKey(_digest(key), _scope(scope, where), share) if colon else ApiKey(_digest(text), Scope.ADMIN)


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
        if len(words) not in (2, 3) or len(digest) != hashlib.sha256().digest_size:
            raise BadInputError(
                f"{where}: a line must be the SHA-256 of a key in hex, then a scope, then the share of the queue if it "
                "is not 1; 'semel key' prints such a line"
            )
        keys.append(ApiKey(digest, _scope(words[1], where), _share(words[2], where) if len(words) == 3 else 1.0))
    return keys


def file_line(key: str, scope: str) -> str:
    """Return the line of `SEMEL_API_KEYS_FILE` for a key. Raises BadInputError for an unknown scope."""
    return f"{_digest(key).hex()} {_scope(scope, '--scope').name.lower()}"


def _scope(name: str, where: str) -> Scope:
    try:
        return Scope[name.upper()]
    except KeyError:
        known = ", ".join(scope.name.lower() for scope in Scope)
        # The message does not quote the name: it may be a part of a key.
        raise BadInputError(f"{where}: the scope of a key must be one of {known}") from None


def _share(text: str, where: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = 0.0
    if not 0 < share < math.inf:
        raise BadInputError(f"{where}: the share of a key must be a number greater than 0")
    return share


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def find_key(keys: tuple[ApiKey, ...], presented: str) -> ApiKey | None:
    """Return the entry of a presented key, or None for an unknown key.

    It compares with every key, so that the time does not show which one matches.
    """
    digest, found = _digest(presented), None
    for key in keys:
        if hmac.compare_digest(digest, key.digest):
            found = key
    return found


def admit(request: Request, needed: Scope) -> None:
    """Check the key of a request against what its route needs; sets `request.state.scope` and `.submitter`.

    Raises:
        UnauthorizedError: the request has no key, or an unknown one.
        ForbiddenError: the scope of the key is too small.
        ForeignPageError: the server has no keys, and another website sends the request.
    """
    keys: tuple[ApiKey, ...] = request.app.state.api_keys
    if not keys:
        refuse_foreign_pages(request, request.app.state.own_names)
        request.state.scope, request.state.submitter = Scope.ADMIN, NOBODY
        return
    presented = _presented(request)
    if not presented:
        raise UnauthorizedError("this server needs an API key: send 'Authorization: Bearer KEY'")
    known = find_key(keys, presented)
    if known is None:
        raise UnauthorizedError("this server does not know this API key; check it, or ask the operator for one")
    if known.scope < needed:
        raise ForbiddenError(
            f"this API key has the scope '{known.scope.name.lower()}'; this request needs '{needed.name.lower()}'"
        )
    request.state.scope, request.state.submitter = known.scope, known.submitter


def _presented(request: Request) -> str | None:
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if kind.lower() == "bearer" else request.headers.get("x-api-key")


def may_see_details(request: Request) -> bool:
    """Whether the caller of a public route has a key of this server, or the server needs none."""
    keys: tuple[ApiKey, ...] = request.app.state.api_keys
    return not keys or find_key(keys, _presented(request) or "") is not None


def submitter_of(request: Request) -> Submitter:
    """Who sends an admitted request."""
    submitter: Submitter = request.state.submitter
    return submitter


def may(request: Request, scope: Scope) -> bool:
    """Whether the key of an admitted request also has this scope."""
    return bool(request.state.scope >= scope)
