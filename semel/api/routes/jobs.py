"""/v1/jobs: submit, look, fetch, cancel."""

import json
import time
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse
from pydantic import ValidationError
from starlette.requests import ClientDisconnect

from semel.api.access import MAY_READ, MAY_SUBMIT
from semel.api.deps import ServicesDep
from semel.api.ingest import Ingest
from semel.api.results import FORMATS, check_ready, read_rows
from semel.api.schemas import JobList, JobObject, JobRequest, job_object
from semel.api.services import Services
from semel.errors import BadInputError, BodyTooLargeError, ConflictError, SemelError
from semel.values import ItemError, Job, Lane

router = APIRouter(tags=["Jobs"], dependencies=MAY_READ)

_FEED_BYTES = 256 << 10
"""Bytes parsed at a time: enough to leave the event loop alone, little enough to keep memory flat."""

_TOUCH_S = 10.0
"""A slow upload says this often that it lives; one that is silent for two minutes is given up."""

NDJSON = "application/x-ndjson"

_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": JobRequest.model_json_schema()},
            NDJSON: {"schema": {"type": "string"}, "example": '{"text": "one"}\n{"text": "two"}\n'},
        },
    }
}


@router.post(
    "/v1/jobs",
    response_model=JobObject,
    status_code=202,
    openapi_extra=_BODY,
    dependencies=MAY_SUBMIT,
)
async def create_job(
    request: Request,
    services: ServicesDep,
    model: str | None = None,
    device: str = "auto",
    prompt_name: str = "",
    truncate: Annotated[bool, Query()] = True,  # noqa: FBT002  # a query parameter
    metadata: Annotated[str, Query(description="A JSON object of strings.")] = "{}",
) -> JobObject:
    """Submit a job: one JSON body, or NDJSON of any length (`Content-Type: application/x-ndjson`), streamed.

    Work on the first texts starts while the last ones are still being sent.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip() == NDJSON:
        wanted = JobRequest(
            input=[],
            model=model,
            device=device,
            prompt_name=prompt_name,
            truncate=truncate,
            metadata=_metadata(metadata),
        )
        job = await run_in_threadpool(_create, services, wanted)
        return job_object(await _stream(request, services, job))
    wanted = await _json_request(request, services)
    wanted = wanted.model_copy(update={"model": wanted.model or model})
    return job_object(await run_in_threadpool(_submit, services, wanted))


def _metadata(text: str) -> dict[str, str]:
    try:
        given = json.loads(text)
    except ValueError:
        given = None
    if not isinstance(given, dict) or not all(isinstance(v, str) for v in given.values()):
        raise BadInputError("metadata must be a JSON object whose values are strings")
    return given


async def _json_request(request: Request, services: Services) -> JobRequest:
    limit = services.settings.max_body_bytes
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > limit:
            raise BodyTooLargeError(
                f"the body is larger than {limit} bytes (SEMEL_MAX_BODY_BYTES); send NDJSON, which is streamed: "
                f"Content-Type: {NDJSON}"
            )
    try:
        return JobRequest.model_validate_json(bytes(body))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the body"
        raise BadInputError(f"{where}: {first['msg']}") from None


def _create(services: Services, wanted: JobRequest) -> Job:
    services.ping_redis()  # refuse now, with the reason, rather than accept what cannot start
    name = wanted.model or services.settings.default_model
    space = services.catalog.space(name, wanted.prompt_name)
    route = services.router.route(name, wanted=wanted.device)
    return services.jobs.create(
        space, lane=Lane.BULK, device=route.device, why=route.why, truncate=wanted.truncate, metadata=wanted.metadata
    )


def _submit(services: Services, wanted: JobRequest) -> Job:
    if not wanted.input:
        raise BadInputError("input is an empty list; send at least one text")
    job = _create(services, wanted)
    ingest = Ingest(services, job)
    try:
        for text in wanted.input:
            ingest.add(text)
        return ingest.finish()
    except ConflictError:  # cancelled meanwhile: that is its end, not a failure
        raise
    except SemelError as error:
        services.jobs.fail(job.id, ItemError.of(error))
        raise


async def _stream(request: Request, services: Services, job: Job) -> Job:
    ingest = Ingest(services, job)
    buffer, touched = bytearray(), time.monotonic()
    try:
        async for part in request.stream():
            buffer += part
            if time.monotonic() - touched > _TOUCH_S:
                touched = time.monotonic()
                await run_in_threadpool(services.jobs.touch, job.id)
            if len(buffer) >= _FEED_BYTES:
                await run_in_threadpool(ingest.feed_lines, bytes(buffer))
                buffer.clear()
        await run_in_threadpool(ingest.feed_lines, bytes(buffer))
        return await run_in_threadpool(ingest.finish)
    except ClientDisconnect:
        await run_in_threadpool(
            services.jobs.fail, job.id, ItemError("upload_cut_off", "the client went away while it sent the texts")
        )
        raise
    except ConflictError:  # cancelled meanwhile: that is its end, not a failure
        raise
    except SemelError as error:
        await run_in_threadpool(services.jobs.fail, job.id, ItemError.of(error))
        raise


@router.get("/v1/jobs", response_model=JobList)
def list_jobs(
    services: ServicesDep, limit: Annotated[int, Query(ge=1, le=100)] = 20, after: str | None = None
) -> JobList:
    """Jobs, the newest first."""
    found = services.jobs.list_jobs(limit=limit + 1, after=after)
    return JobList(data=[job_object(job) for job in found[:limit]], has_more=len(found) > limit)


@router.get("/v1/jobs/{job_id}", response_model=JobObject)
def get_job(job_id: str, services: ServicesDep) -> JobObject:
    """One job with its counts."""
    return job_object(services.jobs.get(job_id))


@router.post("/v1/jobs/{job_id}/cancel", response_model=JobObject, dependencies=MAY_SUBMIT)
def cancel_job(job_id: str, services: ServicesDep) -> JobObject:
    """Stop a job. What was computed stays in the cache."""
    return job_object(services.jobs.cancel(job_id))


@router.get("/v1/jobs/{job_id}/results", response_class=StreamingResponse)
def get_results(
    job_id: str,
    services: ServicesDep,
    format: Literal["ndjson", "npy", "arrow", "parquet"] = "ndjson",  # noqa: A002  # the name of the parameter
) -> Response:
    """The vectors of a completed job, in the order of its texts, streamed."""
    job = services.jobs.get(job_id)
    check_ready(job, format)
    media_type, write = FORMATS[format]
    headers: dict[str, Any] = {"content-disposition": f'attachment; filename="{job_id}.{format}"'}
    return StreamingResponse(write(job, read_rows(services, job)), media_type=media_type, headers=headers)
