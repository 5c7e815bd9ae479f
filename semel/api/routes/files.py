"""/v1/files, in OpenAI's shape: what batches read and write."""

import shutil
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse
from pydantic import BaseModel
from starlette.datastructures import FormData

from semel.api.deps import ServicesDep
from semel.api.edge.access import MAY_READ, MAY_SUBMIT, Scope, may
from semel.api.jobs.uploads import file_of, read_form
from semel.api.services import Services
from semel.errors import BadInputError, ConflictError, ForbiddenError
from semel.tasks.jobs.files import StoredFile

router = APIRouter(tags=["OpenAI files and batches"], dependencies=MAY_READ)

_MIN_EXPIRES_S, _MAX_EXPIRES_S = 3600, 30 * 86400

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
                            "minimum": _MIN_EXPIRES_S,
                            "maximum": _MAX_EXPIRES_S,
                        },
                    },
                }
            }
        },
    }
}


class FileObject(BaseModel):
    """OpenAI's file object. Times are Unix seconds."""

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    expires_at: int | None
    filename: str
    purpose: str
    status: Literal["processed"] = "processed"


class FileList(BaseModel):
    object: Literal["list"] = "list"
    data: list[FileObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


class FileDeleted(BaseModel):
    id: str
    object: Literal["file"] = "file"
    deleted: bool = True


@router.post("/v1/files", response_model=FileObject, dependencies=MAY_SUBMIT, openapi_extra=_FORM)
async def upload_file(request: Request, services: ServicesDep) -> FileObject:
    """Upload a file of batch requests (`purpose=batch`), streamed to disk."""
    form = await read_form(request, max_bytes=services.settings.max_file_bytes)
    try:
        return await run_in_threadpool(_keep, services, form)
    finally:
        await form.close()


def _keep(services: Services, form: FormData) -> FileObject:
    upload, purpose = file_of(form), form.get("purpose")
    if purpose != "batch":
        raise BadInputError(f"purpose must be 'batch', which is all that semel does with files, not {purpose!r}")
    expires_s = expires_after(form.get("expires_after[anchor]"), form.get("expires_after[seconds]"))
    with services.files.writing() as target:
        shutil.copyfileobj(upload.file, target, 1 << 20)
        name = upload.filename or "file.jsonl"
        return file_object(services.files.add(target, purpose=purpose, filename=name, expires_s=expires_s))


def expires_after(anchor: Any, seconds: Any) -> float | None:
    """Seconds from now, or None when the client did not say. Raises BadInputError."""
    if anchor is None and seconds is None:
        return None
    if anchor != "created_at":
        raise BadInputError(f"expires_after[anchor] must be 'created_at', not {anchor!r}")
    try:
        wanted = int(seconds)
    except (TypeError, ValueError, OverflowError):
        wanted = 0
    if not _MIN_EXPIRES_S <= wanted <= _MAX_EXPIRES_S:
        raise BadInputError(f"expires_after[seconds] must be {_MIN_EXPIRES_S} to {_MAX_EXPIRES_S}, not {seconds!r}")
    return float(wanted)


@router.get("/v1/files", response_model=FileList)
def list_files(
    services: ServicesDep,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 10_000,
    after: Annotated[str | None, Query(description="Id of the last file of the page before.")] = None,
    order: Literal["asc", "desc"] = "desc",
    purpose: str | None = None,
) -> FileList:
    """Files, the newest first."""
    found = services.files.list_files(limit=limit + 1, after=after, purpose=purpose, ascending=order == "asc")
    data = [file_object(stored) for stored in found[:limit]]
    return FileList(
        data=data,
        first_id=data[0].id if data else None,
        last_id=data[-1].id if data else None,
        has_more=len(found) > limit,
    )


@router.get("/v1/files/{file_id}", response_model=FileObject)
def get_file(file_id: str, services: ServicesDep) -> FileObject:
    """One file."""
    return file_object(services.files.get(file_id))


@router.delete("/v1/files/{file_id}", response_model=FileDeleted, dependencies=MAY_SUBMIT)
def delete_file(file_id: str, services: ServicesDep) -> FileDeleted:
    """Delete a file; refused while a batch still reads it."""
    services.files.delete(file_id)
    return FileDeleted(id=file_id)


@router.get(
    "/v1/files/{file_id}/content",
    response_class=FileResponse,
    responses={200: {"content": {"application/octet-stream": {}}}},
)
def get_content(request: Request, file_id: str, services: ServicesDep) -> FileResponse:
    """What is in a file; what goes into a batch has texts, which a key that may only read does not see."""
    stored = services.files.get(file_id)
    if stored.purpose == "batch" and not may(request, Scope.SUBMIT):
        raise ForbiddenError(f"file {file_id} has texts; it takes a key that may submit")
    path = services.files.path(stored.id)
    if not path.exists():
        raise ConflictError(f"the content of file {file_id} is not in {path.parent}: was it deleted by hand?")
    return FileResponse(path, media_type="application/octet-stream", filename=stored.filename)


def file_object(stored: StoredFile) -> FileObject:
    return FileObject(
        id=stored.id,
        bytes=stored.bytes,
        created_at=int(stored.created_at),
        expires_at=None if stored.expires_at is None else int(stored.expires_at),
        filename=stored.filename,
        purpose=stored.purpose,
    )
