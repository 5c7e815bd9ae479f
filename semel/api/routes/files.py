"""/v1/files as OpenAI defines them: the files that batches read and write."""

import shutil
from typing import Annotated, Literal

from fastapi import Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse
from starlette.datastructures import FormData

from semel.api.batch.wire import (
    MAX_EXPIRES_S,
    MIN_EXPIRES_S,
    FileDeleted,
    FileList,
    FileObject,
    expires_after,
    file_object,
)
from semel.api.deps import ServicesDep
from semel.api.edge.access import submitter_of
from semel.api.edge.keys import Scope
from semel.api.edge.traits import DialectRouter, audited, needs, streams_body
from semel.api.jobs.uploads import file_of, read_form
from semel.api.services import Services
from semel.errors import BadInputError, ConflictError
from semel.values.job import Submitter

router = DialectRouter(tags=["OpenAI files and batches"], needs=Scope.READ)

_FORM = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file", "purpose"],
                    "properties": {
                        "file": {"type": "string", "format": "binary"},
                        "purpose": {"type": "string", "enum": ["batch"]},
                        "expires_after[anchor]": {"type": "string", "enum": ["created_at"]},
                        "expires_after[seconds]": {
                            "type": "integer",
                            "minimum": MIN_EXPIRES_S,
                            "maximum": MAX_EXPIRES_S,
                        },
                    },
                }
            }
        },
    }
}


@router.post("/v1/files", response_model=FileObject, openapi_extra=_FORM)
@needs(Scope.SUBMIT)
@streams_body
async def upload_file(request: Request, services: ServicesDep) -> FileObject:
    """Upload a file of batch requests (`purpose=batch`), streamed to disk."""
    form = await read_form(request, max_bytes=services.settings.max_file_bytes)
    try:
        return await run_in_threadpool(_store, services, form, submitter_of(request))
    finally:
        await form.close()


def _store(services: Services, form: FormData, submitter: Submitter) -> FileObject:
    upload, purpose = file_of(form), form.get("purpose")
    if purpose != "batch":
        raise BadInputError(f"purpose must be 'batch', the only use that semel has for files, not {purpose!r}")
    expires_s = expires_after(form.get("expires_after[anchor]"), form.get("expires_after[seconds]"))
    services.stores.disk_use.check(submitter, more=upload.size or 0)
    with services.stores.files.writing() as target:
        shutil.copyfileobj(upload.file, target, 1 << 20)
        name = (upload.filename or "file.jsonl")[-255:]  # file systems have the same bound
        add = services.stores.files.add
        return file_object(add(target, purpose=purpose, filename=name, expires_s=expires_s, submitter=submitter))


@router.get("/v1/files", response_model=FileList)
def list_files(
    services: ServicesDep,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 10_000,
    after: Annotated[str | None, Query(description="The id of the last file on the previous page.")] = None,
    order: Literal["asc", "desc"] = "desc",
    purpose: str | None = None,
) -> FileList:
    """List files, the newest first."""
    found = services.stores.files.list_files(limit=limit + 1, after=after, purpose=purpose, ascending=order == "asc")
    data = [file_object(stored) for stored in found[:limit]]
    return FileList(
        data=data,
        first_id=data[0].id if data else None,
        last_id=data[-1].id if data else None,
        has_more=len(found) > limit,
    )


@router.get("/v1/files/{file_id}", response_model=FileObject)
def get_file(file_id: str, services: ServicesDep) -> FileObject:
    """Return one file."""
    return file_object(services.stores.files.get(file_id))


@router.delete("/v1/files/{file_id}", response_model=FileDeleted)
@needs(Scope.SUBMIT)
@audited
def delete_file(file_id: str, services: ServicesDep) -> FileDeleted:
    """Delete a file. This is refused while a batch still reads the file."""
    services.stores.files.delete(file_id)
    return FileDeleted(id=file_id)


@router.get(
    "/v1/files/{file_id}/content",
    response_class=FileResponse,
    responses={200: {"content": {"application/octet-stream": {}}}},
)
@needs(Scope.SUBMIT)
def get_content(file_id: str, services: ServicesDep) -> FileResponse:
    """Download a file. The input of a batch holds texts, and so may its output: documents that were reranked."""
    stored = services.stores.files.get(file_id)
    path = services.stores.files.path(stored.id)
    if not path.exists():
        raise ConflictError(f"the content of file {file_id} is missing from {path.parent}: was it deleted by hand?")
    return FileResponse(path, media_type="application/octet-stream", filename=stored.filename)
