"""/v1/jobs: estimate, submit, list, follow, download, cancel, retry and delete jobs."""

import asyncio
from collections.abc import AsyncIterable
from functools import partial
from pathlib import PurePath
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import Query, Request, Response
from fastapi.responses import StreamingResponse

from semel.api.deps import ServicesDep, services_of
from semel.api.edge.access import may, sees, submitter_of
from semel.api.edge.as_json import as_json
from semel.api.edge.keys import Scope
from semel.api.edge.reading import read_query, shows_query
from semel.api.edge.traits import DialectRouter, audited, direct, needs, streams_body
from semel.api.jobs.bodies import TABLES, HashedBody, receive
from semel.api.jobs.estimate import EstimateObject, estimating
from semel.api.jobs.events import event_stream, job_events
from semel.api.jobs.result_formats import FORMATS
from semel.api.jobs.small import SmallSubmissions
from semel.api.jobs.small_reads import SmallReads, Wanted
from semel.api.jobs.submission import new_job, once
from semel.api.jobs.uploads import NDJSON
from semel.api.jobs.wire import (
    ChunkList,
    FailedList,
    JobList,
    JobObject,
    JobQuery,
    JobRequest,
    ResultsQuery,
    chunk_object,
    failed_object,
    job_object,
)
from semel.tasks.jobs.idempotency import Reservation
from semel.tasks.jobs.retry import retry
from semel.tracing import annotate
from semel.values.job import Job, JobStatus

router = DialectRouter(tags=["Jobs"], needs=Scope.READ)

_MOST_ROWS = 2**62
"""More rows than any job has; the databases count to 2**63 - 1."""

_QUERY = shows_query(JobQuery)

_IDEMPOTENCY_KEY: dict[str, Any] = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "For a day, the same key with the same body returns the same job.",
    "schema": {"type": "string"},
}

_JOB_ID: dict[str, Any] = {"name": "job_id", "in": "path", "required": True, "schema": {"type": "string"}}

_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": JobRequest.model_json_schema()},
            NDJSON: {"schema": {"type": "string"}, "example": '{"id": 1, "text": "one"}\n{"id": 2, "text": "two"}\n'},
            **{kind: {"schema": {"type": "string", "format": "binary"}} for kind in TABLES},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {
                        "file": {"type": "string", "format": "binary"},
                        **JobQuery.model_json_schema()["properties"],
                    },
                }
            },
        },
    }
}


@router.post(
    "/v1/jobs",
    response_model=JobObject,
    status_code=202,
    openapi_extra={"parameters": [*_QUERY, _IDEMPOTENCY_KEY], **_BODY},
)
@direct
@needs(Scope.SUBMIT)
@streams_body
async def create_job(request: Request) -> Response:
    """Submit a job as JSON, as NDJSON of any length, as CSV or Parquet, or as a form with a `file` of one of these.

    NDJSON is streamed: work on the first texts starts while the last ones are still being sent. A row is
    `{"text": "…"}`, or `{"query": "…", "document": "…"}` for a cross-encoder. Its `id` and every other field come back
    with its result.
    """
    services, submitter = services_of(request), submitter_of(request)
    small_jobs: SmallSubmissions = request.app.state.small_jobs

    async def received(body: AsyncIterable[bytes], reservation: Reservation | None = None) -> Job:
        small = partial(small_jobs.submit, submitter=submitter, reservation=reservation)
        large = partial(new_job, submitter=submitter, reservation=reservation)
        return await receive(services, request, body, large, small=small)

    idempotency_key = request.headers.get("idempotency-key")
    if idempotency_key is None:
        job = await received(request.stream())
    else:
        job = await once(services, idempotency_key, HashedBody(request), received)
    annotate(job=job.id)
    return Response(job_object(job).model_dump_json(), status_code=202, media_type="application/json")


@router.post("/v1/jobs/estimate", response_model=EstimateObject, openapi_extra={"parameters": _QUERY, **_BODY})
@needs(Scope.SUBMIT)
@streams_body
async def estimate_job(request: Request, services: ServicesDep) -> EstimateObject:
    """Estimate a job: how many texts it has, how many of them are cached, and how long the others take.

    Nothing is submitted or computed.
    """
    return await receive(services, request, request.stream(), estimating)


@router.get("/v1/jobs", response_model=JobList)
def list_jobs(
    services: ServicesDep,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    after: Annotated[str | None, Query(description="The id of the last job on the previous page.")] = None,
    status: JobStatus | None = None,
    model: str | None = None,
) -> JobList:
    """List jobs, the newest first."""
    if model is not None:
        model = services.stores.catalog.space(model).model  # an unknown name is an error, not an empty list
    found = services.stores.jobs.list_jobs(limit=limit + 1, after=after, status=status, model=model)
    running = services.watch.running.by_job({job.id for job in found if not job.status.ended})
    data = [job_object(job, in_hand=running[job.id]) for job in found[:limit]]
    return JobList(data=data, has_more=len(found) > limit)


@router.get("/v1/jobs/{job_id}", response_model=JobObject, openapi_extra={"parameters": [_JOB_ID]})
@direct
async def get_job(request: Request) -> Response:
    """Return one job with its counts."""
    small_reads: SmallReads = request.app.state.small_reads
    read = await asyncio.wrap_future(small_reads.read(Wanted(request.path_params["job_id"], namespace=sees(request))))
    return Response(job_object(read.job, in_hand=read.in_hand).model_dump_json(), media_type="application/json")


@router.get("/v1/jobs/{job_id}/chunks")
def get_chunks(
    job_id: str,
    services: ServicesDep,
    limit: Annotated[int, Query(ge=1, le=1000)] = 200,
    after: Annotated[
        int, Query(ge=-1, le=_MOST_ROWS, description="The position of the last chunk on the previous page.")
    ] = -1,
) -> ChunkList:
    """List the chunks of a job, by position."""
    services.stores.jobs.get(job_id)  # an unknown id is an error, not an empty list
    found = services.stores.parts.chunks(job_id, after=after, limit=limit + 1)
    states = services.stores.parts.count_by_state(job_id)
    return ChunkList(states=states, data=[chunk_object(c) for c in found[:limit]], has_more=len(found) > limit)


@router.get("/v1/jobs/{job_id}/failed", response_model=FailedList)
def get_failed(
    request: Request,
    job_id: str,
    services: ServicesDep,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    after: Annotated[
        int, Query(ge=-1, le=_MOST_ROWS, description="The index of the last text on the previous page.")
    ] = -1,
) -> Response:
    """List the texts of a job that have failed so far, with the reasons; `retry` runs them again."""
    services.stores.jobs.get(job_id)
    found = services.stores.parts.failed(job_id, after=after, limit=limit + 1)
    with_text = may(request, Scope.SUBMIT)
    data = [failed_object(one, with_text=with_text) for one in found[:limit]]
    answer = FailedList(data=data, has_more=len(found) > limit)
    return Response(as_json(answer.model_dump()), media_type="application/json")  # a client's ids may be any JSON


@router.post("/v1/jobs/{job_id}/cancel", response_model=JobObject)
@needs(Scope.SUBMIT)
@audited
def cancel_job(job_id: str, services: ServicesDep) -> JobObject:
    """Stop a job. Vectors that were computed stay in the cache."""
    return job_object(services.stores.jobs.cancel(job_id))


@router.post("/v1/jobs/{job_id}/retry", response_model=JobObject)
@needs(Scope.SUBMIT)
@audited
def retry_job(job_id: str, services: ServicesDep) -> JobObject:
    """Run the failed texts of a finished job again, and no others."""
    services.fleet.ping()
    job = services.stores.jobs.get(job_id)
    services.fleet.backlog.check(job.lane, job.device)
    retry(services.stores.db, job_id, window_s=services.settings.job_window_s)
    job = services.stores.jobs.get(job_id)
    services.fleet.dispatcher.top_up(job.lane, job.device)
    return job_object(job)


@router.delete("/v1/jobs/{job_id}", status_code=204)
@needs(Scope.SUBMIT)
@audited
def delete_job(job_id: str, services: ServicesDep) -> None:
    """Delete a finished job. Its vectors stay in the cache."""
    services.watch.metrics.ended(services.watch.ended_jobs.new())  # while the job can still be counted
    services.stores.jobs.delete(job_id)


@router.get(
    "/v1/jobs/{job_id}/events",
    response_class=StreamingResponse,
    responses={200: {"content": {"text/event-stream": {}}}},
)
def get_events(request: Request, job_id: str, services: ServicesDep) -> Response:
    """Follow a job by server-sent events: `progress` with the job, its rate and the seconds left, then `end`."""
    job = services.stores.jobs.get(job_id)
    pause = request.app.state.lives.of(None).pause
    return event_stream(job_events(services.stores.jobs, services.watch.running, job, pause))


@router.get(
    "/v1/jobs/{job_id}/results",
    response_class=StreamingResponse,
    openapi_extra={"parameters": [_JOB_ID, *shows_query(ResultsQuery)]},
)
@direct
async def get_results(request: Request) -> Response:
    """Download the vectors of a completed job as a stream, in the order of its texts.

    A key that may only read gets neither the other fields of the rows, which may be texts, nor vectors that would have
    to be computed again.
    """
    small_reads: SmallReads = request.app.state.small_reads
    job_id, query = request.path_params["job_id"], read_query(request, ResultsQuery)
    may_submit = may(request, Scope.SUBMIT)
    read = await asyncio.wrap_future(small_reads.read(Wanted(job_id, query.format, may_submit, sees(request))))
    job, body = read.job, read.body
    span = range(
        min(query.offset, job.total), job.total if query.limit is None else min(query.offset + query.limit, job.total)
    )
    media_type, write = FORMATS[query.format]
    stem = quote(PurePath(job.metadata.get("file") or job_id).stem)  # the page stores the name of the uploaded file
    disposition = f"attachment; filename=\"{job_id}.{query.format}\"; filename*=UTF-8''{stem}.{query.format}"
    headers: dict[str, Any] = {"content-disposition": disposition}
    if body is not None and len(span) == job.total:
        return Response(body, media_type=media_type, headers=headers)
    parts = write(job, span, services_of(request).results.read(job, span, may_submit=may_submit))
    return StreamingResponse(parts, media_type=media_type, headers=headers)
