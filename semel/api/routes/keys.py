"""/v1/keys: the API keys of this server, without the keys themselves."""

import math
from typing import Literal

from fastapi import Request
from pydantic import BaseModel, Field

from semel.api.deps import ServicesDep
from semel.api.edge.keys import ApiKey, KeyRing, Scope
from semel.api.edge.traits import DialectRouter

router = DialectRouter(tags=["Keys"], needs=Scope.ADMIN)


class KeyObject(BaseModel):
    """An API key. Times are Unix seconds."""

    object: Literal["api_key"] = "api_key"
    name: str = Field(description="Its name, or the first eight hexadecimal digits of its SHA-256.")
    scope: str
    share: float
    namespace: str
    private: bool
    expires_at: float | None
    last_used_at: float | None = Field(description="null if it was never used.")
    kept_bytes: int = Field(description="Of files and texts of jobs.")
    quota_bytes: int | None = Field(description="What it may keep; null for any number.")


class KeyList(BaseModel):
    """The API keys of the settings and of the file."""

    object: Literal["list"] = "list"
    data: list[KeyObject]


@router.get("/v1/keys")
def list_keys(request: Request, services: ServicesDep) -> KeyList:
    """List the API keys: what each may do, when it was last used, and what it keeps on disk."""
    ring: KeyRing = request.app.state.api_keys
    used = services.stores.key_use.last()
    return KeyList(data=[_key(key, used.get(key.submitter.owner), services) for key in ring.now()])


def _key(key: ApiKey, last_used_at: float | None, services: ServicesDep) -> KeyObject:
    return KeyObject(
        name=key.shown,
        scope=key.scope.name.lower(),
        share=key.share,
        namespace=key.namespace,
        private=key.private,
        expires_at=None if key.expires_at == math.inf else key.expires_at,
        last_used_at=last_used_at,
        kept_bytes=services.stores.disk_use.bytes_of(key.submitter.owner),
        quota_bytes=key.quota_bytes,
    )
