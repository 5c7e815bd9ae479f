"""API keys: what each may do, and where they are read from.

Keys are compared as SHA-256 digests in constant time; plain keys are forgotten once they are read.
"""

import hashlib
import hmac
import math
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import IntEnum
from pathlib import Path
from typing import Any

from semel.errors import BadInputError
from semel.log import get_log
from semel.settings import Settings
from semel.values.job import Submitter

log = get_log("keys")

_UNITS = {"MB": 10**6, "GB": 10**9, "TB": 10**12}

_LOOK_S = 1.0
"""How often a request looks whether the file of keys has changed."""


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
    """An API key.

    Attributes:
        digest: SHA-256 of the key.
        share: its part of a queue next to other keys.
        name: what the log calls it.
        namespace: whose jobs, files and batches it sees; empty for those of all keys without a namespace.
        private: whether the vectors of the namespace are its own, too.
        expires_at: it is refused from then on; Unix seconds.
        quota_bytes: of files and texts of jobs that it may keep; None for any number.
    """

    digest: bytes
    scope: Scope
    share: float = 1.0
    name: str = ""
    namespace: str = ""
    private: bool = False
    expires_at: float = math.inf
    quota_bytes: int | None = None

    @property
    def submitter(self) -> Submitter:
        """Who submits with this key."""
        return Submitter(self.digest.hex()[:16], self.share, self.namespace, self.private, self.quota_bytes)

    @property
    def has_expired(self) -> bool:
        """Whether it is refused by now."""
        return self.expires_at <= time.time()

    @property
    def shown(self) -> str:
        """What the log calls it."""
        return self.name or f"key {self.digest.hex()[:8]}"


def load_keys(settings: Settings) -> tuple[ApiKey, ...]:
    """Read the keys in `SEMEL_API_KEYS` and `SEMEL_API_KEYS_FILE`.

    The setting has plain keys, `KEY`, `KEY:SCOPE` or `KEY:SCOPE:SHARE`, separated by commas. A line of the file is
    `SHA256-IN-HEX SCOPE`, then the share if it is not 1, and options: `name=…`, `namespace=…`, `cache=private` or
    `cache=shared` (the default) for the namespace, `expires=YYYY-MM-DD`, `disk=10GB`. A # starts a comment.

    Raises:
        BadInputError: the file cannot be read, a setting is set but holds no key, a line is not a key, a scope is
            unknown, or the keys of a namespace do not agree on its cache.
    """
    keys = [_plain(part.strip()) for part in settings.api_keys.get_secret_value().split(",") if part.strip()]
    if settings.api_keys_file is not None:
        keys += _from_file(settings.api_keys_file)
    if not keys and (settings.api_keys.get_secret_value() or settings.api_keys_file is not None):
        raise BadInputError(
            "SEMEL_API_KEYS or SEMEL_API_KEYS_FILE is set but holds no key, which would open the server to every "
            "caller: add a key, or unset it"
        )
    for key in keys:
        if key.private and any(other.namespace == key.namespace and not other.private for other in keys):
            raise BadInputError(
                f"some keys of the namespace {key.namespace!r} have cache=private and others do not: a namespace has "
                "one cache"
            )
    return tuple(keys)


class KeyRing:
    """The keys of a running server. Those of the file are read again when it has changed. Thread-safe.

    Raises:
        BadInputError: as of `load_keys`, when it is made. Later, the keys stay as they were; the log has the reason.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._changed_at = self._file_time()
        self._look_at = time.monotonic() + _LOOK_S
        self._keys = load_keys(settings)

    def __bool__(self) -> bool:
        return bool(self.now())

    @property
    def has_namespaces(self) -> bool:
        """Whether a key has a namespace: without one, all callers see the same."""
        return any(key.namespace for key in self.now())

    def now(self) -> tuple[ApiKey, ...]:
        """The keys."""
        if time.monotonic() >= self._look_at:
            self._look_at = time.monotonic() + _LOOK_S
            changed_at = self._file_time()
            if changed_at != self._changed_at:
                self._changed_at = changed_at
                self._read_again()
        return self._keys

    def _read_again(self) -> None:
        try:
            self._keys = load_keys(self._settings)
            log.info("API keys read again", keys=len(self._keys))
        except BadInputError as error:
            log.error("the changed file of API keys is not used", reason=str(error))

    def _file_time(self) -> int:
        path = self._settings.api_keys_file
        try:
            return 0 if path is None else path.stat().st_mtime_ns
        except OSError:
            return 0


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
        options = [word for word in words[1:] if "=" in word]
        plain = [word for word in words[1:] if "=" not in word]
        if len(plain) not in (1, 2) or len(digest) != hashlib.sha256().digest_size:
            raise BadInputError(
                f"{where}: a line must be the SHA-256 of a key in hex, then a scope, then the share of the queue if it "
                "is not 1, then options; 'semel key' prints such a line"
            )
        share = _share(plain[1], where) if len(plain) == 2 else 1.0
        keys.append(replace(ApiKey(digest, _scope(plain[0], where), share), **_options(options, where)))
    return keys


def _options(words: Sequence[str], where: str) -> dict[str, Any]:
    """The fields of `ApiKey` that the options of a line set. Raises BadInputError."""
    fields: dict[str, Any] = {}
    for word in words:
        name, _, value = word.partition("=")
        if name == "expires":
            try:
                fields["expires_at"] = datetime.fromisoformat(value).replace(tzinfo=UTC).timestamp()
            except ValueError:
                raise BadInputError(f"{where}: expires must be a date, such as expires=2027-01-31") from None
        elif name == "disk" and (size := re.fullmatch(r"(\d+(?:\.\d+)?)(MB|GB|TB)", value)):
            fields["quota_bytes"] = int(float(size[1]) * _UNITS[size[2]])
        elif name == "cache" and value in ("private", "shared"):
            fields["private"] = value == "private"
        elif name in ("name", "namespace") and re.fullmatch(r"[\w.-]{1,64}", value):
            fields[name] = value
        else:
            raise BadInputError(
                f"{where}: {name!r} is no option, or its value cannot be used; the options are name and namespace (up "
                "to 64 letters, digits, '.', '-' and '_'), cache=private or cache=shared, expires=YYYY-MM-DD, and the "
                "files and texts of jobs that it may keep, such as disk=500MB or disk=10GB"
            )
    if fields.get("private") and "namespace" not in fields:
        raise BadInputError(f"{where}: cache=private needs a namespace, whose vectors are then its own")
    return fields


def file_line(key: str, scope: str, options: Sequence[str] = ()) -> str:
    """Return the line of `SEMEL_API_KEYS_FILE` for a key. Raises BadInputError for an unknown scope or option."""
    _options(options, "the key")
    return " ".join([_digest(key).hex(), _scope(scope, "--scope").name.lower(), *options])


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
