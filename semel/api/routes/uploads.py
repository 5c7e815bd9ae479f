"""/v1/uploads as OpenAI defines them: large files that arrive in parts."""

from typing import Any

from fastapi import Request
from fastapi.concurrency import run_in_threadpool

from semel.api.batch.wire import (
    CompleteRequest,
    PartObject,
    UploadObject,
    UploadRequest,
    expires_after,
    upload_object,
)
from semel.api.deps import ServicesDep
from semel.api.edge.access import submitter_of
from semel.api.edge.keys import Scope
from semel.api.edge.traits import DialectRouter, streams_body
from semel.api.jobs.uploads import file_of, read_form
from semel.errors import BadInputError

router = DialectRouter(tags=["OpenAI files and batches"], needs=Scope.SUBMIT)

_MOST_PART_BYTES = 64 << 20
"""OpenAI's limit for one part."""

_PART: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["data"],
                    "properties": {"data": {"type": "string", "format": "binary"}},
                }
            }
        },
    }
}


@router.post("/v1/uploads", response_model=UploadObject)
def create_upload(request: Request, body: UploadRequest, services: ServicesDep) -> UploadObject:
    """Begin to upload a file in parts of at most 64 MiB, within an hour."""
    most = services.settings.max_file_bytes
    if body.bytes > most:
        raise BadInputError(f"bytes is {body.bytes}, and a file may have {most} (SEMEL_MAX_FILE_BYTES)")
    submitter, lifetime = submitter_of(request), body.expires_after or {}
    services.stores.disk_use.check(submitter, more=body.bytes, arrives_now=False)
    upload = services.stores.uploads.create(
        purpose=body.purpose,
        filename=body.filename,
        size=body.bytes,
        file_expires_s=expires_after(lifetime.get("anchor"), lifetime.get("seconds")),
        submitter=submitter,
    )
    return upload_object(upload)


@router.post("/v1/uploads/{upload_id}/parts", response_model=PartObject, openapi_extra=_PART)
@streams_body
async def add_part(upload_id: str, request: Request, services: ServicesDep) -> PartObject:
    """Add a part, streamed to disk. Parts may arrive at the same time, in any order."""
    uploads = services.stores.uploads
    upload = await run_in_threadpool(uploads.pending, upload_id)
    form = await read_form(request, max_bytes=_MOST_PART_BYTES, fields="data", limit="OpenAI's limit for a part")
    try:
        part = file_of(form, "data")
        await run_in_threadpool(services.stores.disk_use.check, submitter_of(request), more=part.size or 0)
        part_id, at = await run_in_threadpool(uploads.add_part, upload, part.file)
    finally:
        await form.close()
    return PartObject(id=part_id, created_at=int(at), upload_id=upload.id)


@router.post("/v1/uploads/{upload_id}/complete", response_model=UploadObject)
def complete_upload(upload_id: str, body: CompleteRequest, services: ServicesDep) -> UploadObject:
    """Make a file of the parts, in the order of `part_ids`."""
    uploads = services.stores.uploads
    return upload_object(*uploads.complete(uploads.pending(upload_id), body.part_ids, md5=body.md5))


@router.post("/v1/uploads/{upload_id}/cancel", response_model=UploadObject)
def cancel_upload(upload_id: str, services: ServicesDep) -> UploadObject:
    """End an upload, and drop its parts."""
    uploads = services.stores.uploads
    return upload_object(uploads.cancel(uploads.pending(upload_id)))
