"""OpenAI's file and batch objects in JSON."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from semel.api.dialects.openai import MOST_NAME_CHARACTERS
from semel.api.dialects.strict import StrictRequest
from semel.errors import BadInputError
from semel.tasks.jobs.batches import Batch
from semel.tasks.jobs.files import StoredFile
from semel.tasks.jobs.uploads import MOST_PARTS, Upload


class BatchRequest(StrictRequest):
    """OpenAI's request for a batch."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {"input_file_id": "file-…", "endpoint": "/v1/embeddings", "completion_window": "24h"}
        }
    )

    input_file_id: str = Field(max_length=MOST_NAME_CHARACTERS)
    endpoint: str = Field(
        max_length=MOST_NAME_CHARACTERS,
        description="/v1/embeddings, /v1/rerank, /classify or /embed_sparse; the `url` of every line must equal it.",
    )
    completion_window: Literal["24h"] = "24h"
    metadata: dict[str, str] | None = None
    output_expires_after: dict[str, Any] | None = Field(
        default=None,
        description='{"anchor": "created_at", "seconds": 3600 to 2592000}: the lifetime of the output files.',
    )


class BatchErrorObject(BaseModel):
    """What is wrong with a batch or one line of its input; `line` counts from 1."""

    code: str
    message: str
    line: int | None
    param: str | None


class BatchErrors(BaseModel):
    """Why a batch failed: at most 100 errors."""

    object: Literal["list"] = "list"
    data: list[BatchErrorObject]


class RequestCounts(BaseModel):
    """Lines of a batch by outcome."""

    total: int
    completed: int
    failed: int


class InputTokensDetails(BaseModel):
    """How many of the input tokens were not computed."""

    cached_tokens: int = Field(description="Tokens of texts whose vectors were in the cache.")


class OutputTokensDetails(BaseModel):
    """Always zero: embeddings and scores have no output tokens."""

    reasoning_tokens: int = 0


class BatchUsage(BaseModel):
    """Tokens of a batch, counted when its output is written."""

    input_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens: int = 0
    output_tokens_details: OutputTokensDetails = OutputTokensDetails()
    total_tokens: int


class BatchObject(BaseModel):
    """OpenAI's batch object. Times are Unix seconds."""

    id: str
    object: Literal["batch"] = "batch"
    endpoint: str
    model: str | None
    errors: BatchErrors | None
    input_file_id: str
    completion_window: str
    status: str
    output_file_id: str | None
    error_file_id: str | None
    created_at: int
    in_progress_at: int | None
    expires_at: int
    finalizing_at: int | None
    completed_at: int | None
    failed_at: int | None
    expired_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    request_counts: RequestCounts
    usage: BatchUsage
    metadata: dict[str, str] | None


class BatchList(BaseModel):
    """A page of batches."""

    object: Literal["list"] = "list"
    data: list[BatchObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


def batch_object(batch: Batch) -> BatchObject:
    """The wire object of a batch."""
    times = {name: getattr(batch, name) for name in BatchObject.model_fields if name.endswith("_at")}
    errors = [BatchErrorObject(**vars(error)) for error in batch.errors]
    return BatchObject(
        id=batch.id,
        endpoint=batch.endpoint,
        model=batch.model,
        errors=BatchErrors(data=errors) if errors else None,
        input_file_id=batch.input_file_id,
        completion_window=batch.completion_window,
        status=batch.status,
        output_file_id=batch.output_file_id,
        error_file_id=batch.error_file_id,
        **{name: None if at is None else int(at) for name, at in times.items()},  # type: ignore[arg-type]
        request_counts=RequestCounts(total=batch.total, completed=batch.completed, failed=batch.failed),
        usage=BatchUsage(
            input_tokens=batch.input_tokens,
            input_tokens_details=InputTokensDetails(cached_tokens=batch.cached_tokens),
            total_tokens=batch.input_tokens,
        ),
        metadata=batch.metadata or None,
    )


MIN_EXPIRES_S, MAX_EXPIRES_S = 3600, 30 * 86400


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
    """A page of files."""

    object: Literal["list"] = "list"
    data: list[FileObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


class UploadRequest(StrictRequest):
    """OpenAI's request for an upload in parts."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {"filename": "lines.jsonl", "purpose": "batch", "bytes": 1000, "mime_type": "application/jsonl"}
        }
    )

    filename: str = Field(min_length=1, max_length=255)
    purpose: Literal["batch"]
    bytes: int = Field(ge=1, description="Those that the parts have together.")
    mime_type: str = Field(max_length=MOST_NAME_CHARACTERS, description="Accepted without effect.")
    expires_after: dict[str, Any] | None = Field(
        default=None, description='{"anchor": "created_at", "seconds": 3600 to 2592000}: the lifetime of the file.'
    )


class CompleteRequest(StrictRequest):
    """OpenAI's request to make a file of parts."""

    model_config = ConfigDict(json_schema_extra={"example": {"part_ids": ["part_…"]}})

    part_ids: list[Annotated[str, Field(max_length=MOST_NAME_CHARACTERS)]] = Field(min_length=1, max_length=MOST_PARTS)
    md5: str | None = Field(default=None, pattern="^[0-9a-fA-F]{32}$", description="Of the whole file.")


class UploadObject(BaseModel):
    """OpenAI's upload object. Times are Unix seconds."""

    id: str
    object: Literal["upload"] = "upload"
    bytes: int
    created_at: int
    expires_at: int
    filename: str
    purpose: str
    status: str
    file: FileObject | None = None


class PartObject(BaseModel):
    """OpenAI's part of an upload."""

    id: str
    object: Literal["upload.part"] = "upload.part"
    created_at: int
    upload_id: str


class FileDeleted(BaseModel):
    """Confirms that a file was deleted."""

    id: str
    object: Literal["file"] = "file"
    deleted: bool = True


def expires_after(anchor: Any, seconds: Any) -> float | None:
    """Seconds from now until a file expires, or None for the server's default.

    Raises:
        BadInputError: an unknown anchor, or seconds out of range.
    """
    if anchor is None and seconds is None:
        return None
    if anchor != "created_at":
        raise BadInputError(f"expires_after[anchor] must be 'created_at', not {anchor!r}")
    try:
        expires_s = int(seconds)
    except (TypeError, ValueError, OverflowError):
        expires_s = 0
    if not MIN_EXPIRES_S <= expires_s <= MAX_EXPIRES_S:
        raise BadInputError(f"expires_after[seconds] must be {MIN_EXPIRES_S} to {MAX_EXPIRES_S}, not {seconds!r}")
    return float(expires_s)


def file_object(stored: StoredFile) -> FileObject:
    """The wire object of a file."""
    return FileObject(
        id=stored.id,
        bytes=stored.bytes,
        created_at=int(stored.created_at),
        expires_at=None if stored.expires_at is None else int(stored.expires_at),
        filename=stored.filename,
        purpose=stored.purpose,
    )


def upload_object(upload: Upload, stored: StoredFile | None = None) -> UploadObject:
    """The wire object of an upload, with the file that it became."""
    return UploadObject(
        id=upload.id,
        bytes=upload.bytes,
        created_at=int(upload.created_at),
        expires_at=int(upload.expires_at),
        filename=upload.filename,
        purpose=upload.purpose,
        status=upload.status,
        file=None if stored is None else file_object(stored),
    )
