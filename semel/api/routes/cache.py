"""/v1/cache: its contents, verify and prune, and the import of vectors."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from fastapi import Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse

from semel.api.deps import ServicesDep
from semel.api.edge.keys import Scope
from semel.api.edge.traits import DialectRouter, audited, needs, streams_body
from semel.api.jobs.events import event, event_stream
from semel.api.jobs.uploads import NDJSON, PARQUET, content_type, named, received
from semel.api.services import Services
from semel.api.watch.cache_wire import CacheObject, ImportedObject, PrunedObject, PruneRequest
from semel.cache.stats import CacheStats, Verified, verify
from semel.errors import BadInputError
from semel.vector_import import CHECKED_SHARE, Imported

router = DialectRouter(tags=["Cache"], needs=Scope.READ)

_PROGRESS_S = 0.5
"""Time between two `progress` events."""

_SUFFIXES = {NDJSON: ".jsonl", **PARQUET}

_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            NDJSON: {"schema": {"type": "string"}, "example": '{"text": "one", "embedding": [0.6, 0.8]}\n'},
            "application/vnd.apache.parquet": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}


@router.get("/v1/cache")
def get_cache(services: ServicesDep) -> CacheObject:
    """Return the vector spaces in the cache, and when their vectors were stored."""
    contents = services.watch.contents.read()
    return CacheObject.model_validate(contents, from_attributes=True)


@router.post("/v1/cache/prune")
@needs(Scope.ADMIN)
@audited
def prune(services: ServicesDep, request: PruneRequest) -> PrunedObject:
    """Delete vectors, the oldest first, but none that a stored job still needs. A dry run by default."""
    if request.max_bytes is None and request.older_than_s is None and request.fingerprint is None:
        raise BadInputError("nothing selects vectors to delete: send max_bytes, older_than_s or fingerprint")
    if request.fingerprint is not None and not CacheStats(services.stores.db).has_space(request.fingerprint):
        raise BadInputError(f"no vector space has the fingerprint {request.fingerprint!r}; GET /v1/cache lists them")
    delete = services.pruner.count if request.dry_run else services.pruner.prune
    entries = delete(
        max_bytes=request.max_bytes,
        older_than_s=request.older_than_s,
        fingerprint=None if request.fingerprint is None else bytes.fromhex(request.fingerprint),
    )
    if not request.dry_run:
        services.watch.contents.forget()
    return PrunedObject(entries=entries, dry_run=request.dry_run)


@router.post(
    "/v1/cache/verify",
    response_class=StreamingResponse,
    responses={200: {"content": {"text/event-stream": {}}}},
)
@needs(Scope.ADMIN)
@audited
def verify_cache(
    services: ServicesDep,
    repair: Annotated[bool, Query(description="Delete damaged rows: they are computed again.")] = False,  # noqa: FBT002
) -> Response:
    """Read every vector, and check its size, checksum and numbers. Sends `progress` events, then `end`."""
    return event_stream(_verified(services, repair=repair))


_LISTED_KEYS = 20
"""Damaged keys named in `end`."""


def _verified(services: Services, *, repair: bool) -> Iterator[bytes]:
    total = sum(space.entries for space in services.watch.contents.read().spaces)
    sent_at, state = 0.0, Verified(0, [])
    for state in verify(services.stores.db, services.stores.vectors, repair=repair):
        if time.monotonic() - sent_at > _PROGRESS_S:
            sent_at = time.monotonic()
            yield event("progress", {"entries": state.entries, "total": total, "damaged": len(state.damaged)})
    if repair:
        services.watch.contents.forget()
    keys = [key.hex() for key in state.damaged[:_LISTED_KEYS]]
    yield event("end", {"entries": state.entries, "damaged": len(state.damaged), "keys": keys, "repaired": repair})


@router.put("/v1/cache/vectors", response_model=ImportedObject, openapi_extra=_BODY)
@needs(Scope.ADMIN)
@streams_body
@audited
async def put_vectors(
    request: Request,
    services: ServicesDep,
    model: str,
    prompt_name: Annotated[str, Query(description="The name of the prompt that the texts were embedded with.")] = "",
    check: Annotated[
        float, Query(ge=0, le=1, description="Share of the texts that are computed again and compared.")
    ] = CHECKED_SHARE,
) -> ImportedObject:
    """Import vectors of exactly this model: rows with `text` and `embedding`, as NDJSON or Parquet.

    Some of them are computed again and compared; vectors of another model, revision or prompt are refused.
    """
    kind = content_type(request)
    if kind not in _SUFFIXES:
        content_types = ", ".join(_SUFFIXES)
        raise BadInputError(f"the Content-Type of vectors must be one of {content_types}, not {kind or 'missing'}")
    limit = services.settings.max_file_bytes
    async with received(services.stores.files, request.stream(), _SUFFIXES[kind], max_bytes=limit) as path:
        done = await run_in_threadpool(_import, services, path, model, prompt_name, check)
    return ImportedObject(stored=done.stored, present=done.present, compared=done.compared)


def _import(services: Services, path: Path, model: str, prompt_name: str, share: float) -> Imported:
    space, limit = services.stores.catalog.space(model, prompt_name), services.settings.max_text_bytes
    with named("the file", path):
        parts = services.importer.take_file(space, path, max_text_bytes=limit, isolate=True, share=share)
        *_, done = [Imported(0, 0), *parts]
    return done
