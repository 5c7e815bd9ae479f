"""/v1/batches as OpenAI defines them: a file of requests in, a file of answers out."""

from typing import Annotated

from fastapi import Query, Request

from semel.api.batch.lines import ENDPOINTS
from semel.api.batch.wire import BatchList, BatchObject, BatchRequest, batch_object, expires_after
from semel.api.deps import ServicesDep
from semel.api.edge.access import submitter_of
from semel.api.edge.keys import Scope
from semel.api.edge.traits import DialectRouter, audited, needs
from semel.api.jobs.wire import check_metadata
from semel.errors import BadInputError

router = DialectRouter(tags=["OpenAI files and batches"], needs=Scope.READ)

_WINDOW_S = 24 * 3600.0
"""OpenAI has this window only, and so have its clients."""


@router.post("/v1/batches", response_model=BatchObject)
@needs(Scope.SUBMIT)
def create_batch(request: Request, body: BatchRequest, services: ServicesDep) -> BatchObject:
    """Run every request of an uploaded file. The lines are checked first; follow `status` and `errors`."""
    if body.endpoint not in ENDPOINTS:
        raise BadInputError(f"endpoint must be one of {', '.join(ENDPOINTS)}, not {body.endpoint!r}")
    check_metadata(body.metadata or {})
    stored = services.stores.files.get(body.input_file_id)
    if stored.purpose != "batch":
        raise BadInputError(
            f"file {stored.id} has the purpose {stored.purpose!r}; upload the input of a batch with purpose 'batch'"
        )
    services.stores.disk_use.check(submitter_of(request), more=stored.bytes)  # its texts become those of jobs
    expires = body.output_expires_after
    batch = services.stores.batches.create(
        endpoint=body.endpoint,
        input_file_id=stored.id,
        completion_window=body.completion_window,
        window_s=_WINDOW_S,
        metadata=body.metadata or {},
        output_expires_s=None if expires is None else expires_after(expires.get("anchor"), expires.get("seconds")),
        submitter=submitter_of(request),
    )
    return batch_object(batch)


@router.get("/v1/batches", response_model=BatchList)
def list_batches(
    services: ServicesDep,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    after: Annotated[str | None, Query(description="The id of the last batch on the previous page.")] = None,
) -> BatchList:
    """List batches, the newest first."""
    found = services.stores.batches.list_batches(limit=limit + 1, after=after)
    data = [batch_object(batch) for batch in found[:limit]]
    return BatchList(
        data=data,
        first_id=data[0].id if data else None,
        last_id=data[-1].id if data else None,
        has_more=len(found) > limit,
    )


@router.get("/v1/batches/{batch_id}", response_model=BatchObject)
def get_batch(batch_id: str, services: ServicesDep) -> BatchObject:
    """Return one batch with its counts."""
    return batch_object(services.stores.batches.get(batch_id))


@router.post("/v1/batches/{batch_id}/cancel", response_model=BatchObject)
@needs(Scope.SUBMIT)
@audited
def cancel_batch(batch_id: str, services: ServicesDep) -> BatchObject:
    """Stop a batch. Finished requests go to its output file, the others to its error file."""
    return batch_object(services.stores.batches.cancel(batch_id))
