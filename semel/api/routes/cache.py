"""PUT /v1/cache/vectors: a corpus that was embedded elsewhere becomes hits."""

from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel

from semel.api.access import MAY_ADMINISTER
from semel.api.deps import ServicesDep
from semel.api.services import Services
from semel.api.uploads import NDJSON, PARQUET, content_type, named, received
from semel.errors import BadInputError
from semel.importing import Imported

router = APIRouter(tags=["Cache"], dependencies=MAY_ADMINISTER)

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


class ImportedObject(BaseModel):
    """How many vectors were stored, and for how many the cache had one already and kept it."""

    stored: int
    present: int


@router.put("/v1/cache/vectors", response_model=ImportedObject, openapi_extra=_BODY)
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
    async with received(services.files, request.stream(), _SUFFIXES[kind], max_bytes=limit) as path:
        done = await run_in_threadpool(_take, services, path, model, prompt_name)
    return ImportedObject(stored=done.stored, present=done.present)


def _take(services: Services, path: Path, model: str, prompt_name: str) -> Imported:
    space, limit = services.catalog.space(model, prompt_name), services.settings.max_text_bytes
    with named("the file", path):
        *_, done = [Imported(0, 0), *services.importer.take_file(space, path, max_text_bytes=limit)]
    return done
