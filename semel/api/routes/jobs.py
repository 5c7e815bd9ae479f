"""/v1/jobs: submit, look, follow, fetch, cancel, delete."""

import json
from collections.abc import AsyncIterable
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse

from semel.api.access import MAY_READ, MAY_SUBMIT
from semel.api.deps import ServicesDep
from semel.api.events import job_events
from semel.api.results import FORMATS, check_ready, read_rows
from semel.api.schemas import JobList, JobObject, JobRequest, job_object
from semel.api.submission import NDJSON, HashedBody, create, once, read_json, stream, submit
from semel.errors import BadInputError
from semel.values import Job, JobStatus

router = APIRouter(tags=["Jobs"], dependencies=MAY_READ)

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
    idempotency_key: Annotated[
        str | None, Header(description="The same key and body gives the same job, for a day.")
    ] = None,
) -> JobObject:
    """Submit a job: one JSON body, or NDJSON of any length (`Content-Type: application/x-ndjson`), streamed.

    Work on the first texts starts while the last ones are still being sent.
    """
    query = JobRequest(
        input=[],
        model=model,
        device=device,
        prompt_name=prompt_name,
        truncate=truncate,
        metadata=_metadata(metadata),
    )

    async def receive(body: AsyncIterable[bytes]) -> Job:
        if request.headers.get("content-type", "").partition(";")[0].strip() == NDJSON:
            job = await run_in_threadpool(create, services, query)
            return await stream(body, services, job)
        wanted = await read_json(body, services)
        return await run_in_threadpool(submit, services, wanted.model_copy(update={"model": wanted.model or model}))

    if idempotency_key is None:
        return job_object(await receive(request.stream()))
    return job_object(await once(services, idempotency_key, HashedBody(request), receive))


def _metadata(text: str) -> dict[str, str]:
    try:
        given = json.loads(text)
    except ValueError:
        given = None
    if not isinstance(given, dict) or not all(isinstance(v, str) for v in given.values()):
        raise BadInputError("metadata must be a JSON object whose values are strings")
    return given


@router.get("/v1/jobs", response_model=JobList)
def list_jobs(
    services: ServicesDep,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    after: Annotated[str | None, Query(description="Id of the last job of the page before.")] = None,
    status: JobStatus | None = None,
    model: str | None = None,
) -> JobList:
    """Jobs, the newest first."""
    if model is not None:
        services.catalog.space(model)  # an unknown name is an error, not an empty list
    found = services.jobs.list_jobs(limit=limit + 1, after=after, status=status, model=model)
    return JobList(data=[job_object(job) for job in found[:limit]], has_more=len(found) > limit)


@router.get("/v1/jobs/{job_id}", response_model=JobObject)
def get_job(job_id: str, services: ServicesDep) -> JobObject:
    """One job with its counts."""
    return job_object(services.jobs.get(job_id))


@router.post("/v1/jobs/{job_id}/cancel", response_model=JobObject, dependencies=MAY_SUBMIT)
def cancel_job(job_id: str, services: ServicesDep) -> JobObject:
    """Stop a job. What was computed stays in the cache."""
    return job_object(services.jobs.cancel(job_id))


@router.delete("/v1/jobs/{job_id}", status_code=204, dependencies=MAY_SUBMIT)
def delete_job(job_id: str, services: ServicesDep) -> None:
    """Forget a job that has ended. Its vectors stay in the cache."""
    services.jobs.delete(job_id)


@router.get(
    "/v1/jobs/{job_id}/events",
    response_class=StreamingResponse,
    responses={200: {"content": {"text/event-stream": {}}}},
)
def get_events(job_id: str, services: ServicesDep) -> Response:
    """Progress as server-sent events: `progress` with the job, its rate and the seconds left, then `end`."""
    job = services.jobs.get(job_id)
    headers = {"cache-control": "no-store"}
    return StreamingResponse(job_events(services, job), media_type="text/event-stream", headers=headers)


@router.get("/v1/jobs/{job_id}/results", response_class=StreamingResponse)
def get_results(
    job_id: str,
    services: ServicesDep,
    format: Literal["ndjson", "npy", "arrow", "parquet"] = "ndjson",  # noqa: A002  # the name of the parameter
    offset: Annotated[int, Query(ge=0, description="Start at this text; a download that was cut off goes on.")] = 0,
    limit: Annotated[int | None, Query(ge=1, description="At most so many texts.")] = None,
) -> Response:
    """The vectors of a completed job, in the order of its texts, streamed."""
    job = services.jobs.get(job_id)
    check_ready(job, format)
    span = range(min(offset, job.total), job.total if limit is None else min(offset + limit, job.total))
    media_type, write = FORMATS[format]
    headers: dict[str, Any] = {"content-disposition": f'attachment; filename="{job_id}.{format}"'}
    return StreamingResponse(write(job, span, read_rows(services, job, span)), media_type=media_type, headers=headers)
