"""/v1/batches, in OpenAI's shape: a file of requests in, a file of answers out."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from semel.api.batch.lines import ENDPOINTS
from semel.api.deps import ServicesDep
from semel.api.edge.access import MAY_READ, MAY_SUBMIT
from semel.api.jobs.submission import check_metadata
from semel.api.routes.files import expires_after
from semel.errors import BadInputError
from semel.tasks.jobs.batches import Batch

router = APIRouter(tags=["OpenAI files and batches"], dependencies=MAY_READ)

_WINDOW_S = 24 * 3600.0
"""OpenAI knows one window, and so its clients."""


class BatchRequest(BaseModel):
    """OpenAI's request for a batch."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {"input_file_id": "file-…", "endpoint": "/v1/embeddings", "completion_window": "24h"}
        }
    )

    input_file_id: str
    endpoint: str = Field(description="/v1/embeddings or /v1/rerank; the url of every line.")
    completion_window: Literal["24h"] = "24h"
    metadata: dict[str, str] | None = None
    output_expires_after: dict[str, Any] | None = Field(
        default=None, description='{"anchor": "created_at", "seconds": 3600 to 2592000}, for output and error file.'
    )


class BatchErrorObject(BaseModel):
    code: str
    message: str
    line: int | None
    param: str | None


class BatchErrors(BaseModel):
    object: Literal["list"] = "list"
    data: list[BatchErrorObject]


class RequestCounts(BaseModel):
    total: int
    completed: int
    failed: int


class InputTokensDetails(BaseModel):
    cached_tokens: int = Field(description="Of texts whose vectors the cache had.")


class OutputTokensDetails(BaseModel):
    reasoning_tokens: int = 0


class BatchUsage(BaseModel):
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
    object: Literal["list"] = "list"
    data: list[BatchObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


@router.post("/v1/batches", response_model=BatchObject, dependencies=MAY_SUBMIT)
def create_batch(wanted: BatchRequest, services: ServicesDep) -> BatchObject:
    """Run every request of an uploaded file. Its lines are checked first; look at `status` and `errors`."""
    if wanted.endpoint not in ENDPOINTS:
        raise BadInputError(f"endpoint must be one of {', '.join(ENDPOINTS)}, not {wanted.endpoint!r}")
    _check_metadata(wanted.metadata or {})
    stored = services.files.get(wanted.input_file_id)
    if stored.purpose != "batch":
        raise BadInputError(f"file {stored.id} has the purpose {stored.purpose!r}; a batch reads one with 'batch'")
    expires = wanted.output_expires_after
    batch = services.batches.create(
        endpoint=wanted.endpoint,
        input_file_id=stored.id,
        completion_window=wanted.completion_window,
        window_s=_WINDOW_S,
        metadata=wanted.metadata or {},
        output_expires_s=None if expires is None else expires_after(expires.get("anchor"), expires.get("seconds")),
    )
    return batch_object(batch)


def _check_metadata(metadata: dict[str, str]) -> None:
    if len(metadata) > 16 or any(len(key) > 64 or len(value) > 512 for key, value in metadata.items()):
        raise BadInputError("metadata has at most 16 pairs, keys of 64 and values of 512 characters")
    check_metadata(metadata)


@router.get("/v1/batches", response_model=BatchList)
def list_batches(
    services: ServicesDep,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    after: Annotated[str | None, Query(description="Id of the last batch of the page before.")] = None,
) -> BatchList:
    """Batches, the newest first."""
    found = services.batches.list_batches(limit=limit + 1, after=after)
    data = [batch_object(batch) for batch in found[:limit]]
    return BatchList(
        data=data,
        first_id=data[0].id if data else None,
        last_id=data[-1].id if data else None,
        has_more=len(found) > limit,
    )


@router.get("/v1/batches/{batch_id}", response_model=BatchObject)
def get_batch(batch_id: str, services: ServicesDep) -> BatchObject:
    """One batch with its counts."""
    return batch_object(services.batches.get(batch_id))


@router.post("/v1/batches/{batch_id}/cancel", response_model=BatchObject, dependencies=MAY_SUBMIT)
def cancel_batch(batch_id: str, services: ServicesDep) -> BatchObject:
    """Stop a batch. What is done by then goes into its output file, the rest into its error file."""
    return batch_object(services.batches.cancel(batch_id))


def batch_object(batch: Batch) -> BatchObject:
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
