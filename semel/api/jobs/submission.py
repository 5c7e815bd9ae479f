"""A job on its way in: NDJSON, streamed; JSON; CSV, Parquet or a form with a file; once under an idempotency key."""

import uuid
from collections.abc import AsyncIterable, Awaitable, Callable, Iterator
from contextlib import contextmanager

from fastapi.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from semel.api.dialects.embedding import space_of
from semel.api.jobs.bodies import HashedBody
from semel.api.jobs.ingest import Ingest, JobIngest
from semel.api.jobs.webhooks import check_webhook
from semel.api.jobs.wire import JobRequest
from semel.api.services import Services
from semel.errors import BadInputError, ConflictError, SemelError
from semel.tasks.queue.router import Route
from semel.values.device import device_kind
from semel.values.job import Job
from semel.values.model import Space
from semel.values.text import ItemError, Lane


async def once(
    services: Services, key: str, body: HashedBody, receive: Callable[[AsyncIterable[bytes]], Awaitable[Job]]
) -> Job:
    """The job of this idempotency key: received now, or the one of the first submission.

    Raises:
        BadInputError: the key is empty or longer than 255 characters.
        ConflictError: the key stands for another body, or its submission is under way.
    """
    if not 0 < len(key) <= 255:
        raise BadInputError(f"an Idempotency-Key has 1 to 255 characters, this one {len(key)}")
    keys, owner = services.stores.idempotency, uuid.uuid4().hex
    earlier = await run_in_threadpool(lambda: keys.reserve(key, owner=owner))
    if earlier is None:
        try:
            job = await receive(body)
        except BaseException:  # a client that goes away, too: the key must not stay reserved
            await run_in_threadpool(lambda: keys.release(key, owner=owner))
            raise
        await run_in_threadpool(lambda: keys.seal(key, owner=owner, job_id=job.id, digest=body.digest))
        return job
    async for _ in body:
        pass
    if body.digest != earlier.digest:
        raise ConflictError(f"Idempotency-Key {key!r} was used for another body; choose a new key for a new job")
    return await run_in_threadpool(services.stores.jobs.get, earlier.job_id)


def destination(services: Services, wanted: JobRequest) -> tuple[Space, Route]:
    """Where a job's texts go, if it may be submitted now.

    Raises:
        BadInputError, UnavailableError, OverloadedError, UnknownModelError, UnknownDeviceError.
    """
    services.fleet.ping()  # refuse now, with the reason, rather than accept what cannot start
    space = space_of(services.stores.catalog, wanted, device=wanted.device)
    base, _, own = space.model.partition("@")
    if own and device_kind(wanted.device) not in ("auto", own):
        raise BadInputError(
            f"model {space.model!r} is the source that {base!r} has for {own}, and {wanted.device} does not serve it; "
            f"ask for {base!r}, or leave out device"
        )
    route = services.fleet.router.route(space, wanted=wanted.device)
    services.fleet.backlog.check(Lane.BULK, route.device)
    return space, route


def create(services: Services, wanted: JobRequest) -> Job:
    """A job without texts. Raises what `destination` raises."""
    space, route = destination(services, wanted)
    if wanted.webhook_url is not None:
        check_webhook(services.settings, wanted.webhook_url)
    job = services.stores.jobs.create(
        space,
        lane=Lane.BULK,
        device=route.device,
        why=route.why,
        waits=route.waits,
        truncate=wanted.truncate,
        if_no_worker=wanted.if_no_worker,
        metadata=wanted.metadata,
    )
    if wanted.webhook_url is not None:
        services.stores.webhooks.add(job.id, wanted.webhook_url)
    return job


def job_ingest(services: Services, job: Job, *, text_field: str = "text") -> JobIngest:
    """What feeds a job in state `validating`. Raises UnknownModelError when its model is gone."""
    return JobIngest(
        services.settings,
        services.stores.catalog.space(job.model, job.prompt_name),
        job,
        jobs=services.stores.jobs,
        store=services.stores.vectors,
        dispatcher=services.fleet.dispatcher,
        on_added=services.watch.metrics.ingested,
        text_field=text_field,
    )


@contextmanager
def new_job(services: Services, wanted: JobRequest) -> Iterator[Ingest[Job]]:
    """A new job to feed; an error ends it as failed, so that nobody waits for it. Raises what `create` raises."""
    job = create(services, wanted)
    try:
        yield job_ingest(services, job, text_field=wanted.text_field)
    except ConflictError:  # cancelled meanwhile: that is its end, not a failure
        raise
    except ClientDisconnect:
        services.stores.jobs.fail(job.id, ItemError("upload_cut_off", "the client went away while it sent the texts"))
        raise
    except SemelError as error:
        services.stores.jobs.fail(job.id, ItemError.of(error))
        raise
    except Exception as error:
        services.stores.jobs.fail(job.id, ItemError(SemelError.code, f"{type(error).__name__}: {error}"))
        raise
