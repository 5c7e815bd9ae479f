"""/v1/cache: what it holds; verify, prune; vectors that were computed elsewhere."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from fastapi import Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse

from semel.api.deps import ServicesDep
from semel.api.edge.access import MAY_ADMINISTER, MAY_READ
from semel.api.edge.traits import DialectRouter, streams_body
from semel.api.jobs.events import event, event_stream
from semel.api.jobs.uploads import NDJSON, PARQUET, content_type, named, received
from semel.api.services import Services
from semel.api.watch.cache_wire import CacheObject, ImportedObject, PrunedObject, PruneRequest
from semel.cache.stats import CacheStats, Verified, verify
from semel.errors import BadInputError
from semel.vector_import import Imported

router = DialectRouter(tags=["Cache"])

_TELL_S = 0.5

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


@router.get("/v1/cache", dependencies=MAY_READ)
def get_cache(services: ServicesDep) -> CacheObject:
    """The vector spaces in the cache, and when their vectors came."""
    contents = services.watch.contents.read()
    return CacheObject.model_validate(contents, from_attributes=True)


@router.post("/v1/cache/prune", dependencies=MAY_ADMINISTER)
def prune(services: ServicesDep, wanted: PruneRequest) -> PrunedObject:
    """Delete vectors, the oldest first; never what a job that has not expired still needs. A dry run by default."""
    if wanted.max_bytes is None and wanted.older_than_s is None and wanted.fingerprint is None:
        raise BadInputError("say what to delete: max_bytes, older_than_s or fingerprint")
    if wanted.fingerprint is not None and not CacheStats(services.stores.db).has_space(wanted.fingerprint):
        raise BadInputError(f"fingerprint: no space has {wanted.fingerprint!r}; GET /v1/cache lists them")
    delete = services.pruner.count if wanted.dry_run else services.pruner.prune
    entries = delete(
        max_bytes=wanted.max_bytes,
        older_than_s=wanted.older_than_s,
        fingerprint=None if wanted.fingerprint is None else bytes.fromhex(wanted.fingerprint),
    )
    if not wanted.dry_run:
        services.watch.contents.forget()
    return PrunedObject(entries=entries, dry_run=wanted.dry_run)


@router.post(
    "/v1/cache/verify",
    response_class=StreamingResponse,
    responses={200: {"content": {"text/event-stream": {}}}},
    dependencies=MAY_ADMINISTER,
)
def verify_cache(
    services: ServicesDep,
    repair: Annotated[bool, Query(description="Delete damaged rows: they are computed again.")] = False,  # noqa: FBT002
) -> Response:
    """Read every vector and check size, checksum and numbers: `progress` events, then `end`."""
    return event_stream(_verified(services, repair=repair))


_LISTED_KEYS = 20


def _verified(services: Services, *, repair: bool) -> Iterator[bytes]:
    total = sum(space.entries for space in services.watch.contents.read().spaces)
    told, state = 0.0, Verified(0, [])
    for state in verify(services.stores.db, services.stores.vectors, repair=repair):
        if time.monotonic() - told > _TELL_S:
            told = time.monotonic()
            yield event("progress", {"entries": state.entries, "total": total, "damaged": len(state.damaged)})
    if repair:
        services.watch.contents.forget()
    keys = [key.hex() for key in state.damaged[:_LISTED_KEYS]]
    yield event("end", {"entries": state.entries, "damaged": len(state.damaged), "keys": keys, "repaired": repair})


@router.put("/v1/cache/vectors", response_model=ImportedObject, openapi_extra=_BODY, dependencies=MAY_ADMINISTER)
@streams_body
async def put_vectors(
    request: Request,
    services: ServicesDep,
    model: str,
    prompt_name: Annotated[str, Query(description="The prompt that the texts were embedded with.")] = "",
) -> ImportedObject:
    """Take vectors of this very model: rows with `text` and `embedding`, as NDJSON or Parquet.

    Some of them are computed here and compared; vectors of another model, revision or prompt are refused.
    """
    kind = content_type(request)
    if kind not in _SUFFIXES:
        raise BadInputError(f"vectors are sent as {', '.join(_SUFFIXES)}, not as {kind or 'nothing'}")
    limit = services.settings.max_file_bytes
    async with received(services.stores.files, request.stream(), _SUFFIXES[kind], max_bytes=limit) as path:
        done = await run_in_threadpool(_take, services, path, model, prompt_name)
    return ImportedObject(stored=done.stored, present=done.present)


def _take(services: Services, path: Path, model: str, prompt_name: str) -> Imported:
    space, limit = services.stores.catalog.space(model, prompt_name), services.settings.max_text_bytes
    with named("the file", path):
        *_, done = [Imported(0, 0), *services.importer.take_file(space, path, max_text_bytes=limit)]
    return done
