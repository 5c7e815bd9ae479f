"""Creates jobs from submissions, and makes a repeated submission with the same idempotency key return the first job."""

import asyncio
import uuid
from collections.abc import AsyncIterable, Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress

from fastapi.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from semel.api.dialects.embedding import space_of
from semel.api.jobs.bodies import HashedBody
from semel.api.jobs.ingest import Ingest, JobIngest
from semel.api.jobs.webhooks import check_webhook
from semel.api.jobs.wire import JobRequest
from semel.api.services import Services
from semel.errors import BadInputError, ConflictError, QuotaExceededError, SemelError
from semel.tasks.jobs.idempotency import RESERVED_S, IdempotencyKeys, Reservation
from semel.tasks.jobs.new_job import NewJob
from semel.tasks.queue.router import Route
from semel.values.device import device_kind
from semel.values.job import NOBODY, Job, Submitter
from semel.values.model import Space
from semel.values.text import ItemError, Lane


async def once(
    services: Services,
    key: str,
    body: HashedBody,
    receive: Callable[[AsyncIterable[bytes], Reservation], Awaitable[Job]],
) -> Job:
    """The job for this idempotency key: received now, or the job of the first submission.

    Args:
        receive: creates the job, and seals the reservation with it.

    Raises:
        BadInputError: the key is empty or longer than 255 characters.
        ConflictError: the key was used with another body, or its first submission is still under way.
    """
    if not 0 < len(key) <= 255:
        raise BadInputError(f"Idempotency-Key must have 1 to 255 characters, not {len(key)}")
    keys, owner = services.stores.idempotency, uuid.uuid4().hex
    found = await run_in_threadpool(lambda: keys.reserve(key, owner=owner, digest=lambda: body.digest))
    if isinstance(found, Reservation):
        renewing = asyncio.create_task(_renew(keys, found))
        try:
            return await receive(body, found)
        except BaseException:  # also when the client disconnects: the key must not stay reserved
            await run_in_threadpool(lambda: keys.release(found))
            raise
        finally:
            renewing.cancel()
    async for _ in body:
        pass
    if body.digest != found.digest:
        raise ConflictError(f"Idempotency-Key {key!r} was used for another body; choose a new key for a new job")
    return await run_in_threadpool(services.stores.jobs.get, found.job_id)


async def _renew(keys: IdempotencyKeys, reservation: Reservation) -> None:
    """Keep a key reserved while its submission arrives."""
    while True:
        await asyncio.sleep(RESERVED_S / 4)
        with suppress(SemelError):  # the next renewal may succeed
            await run_in_threadpool(lambda: keys.renew(reservation))


def destination(services: Services, request: JobRequest) -> tuple[Space, Route]:
    """The space and the device pool for a job's texts, if the job may be submitted now.

    Raises:
        BadInputError: the options contradict each other, or the device cannot run the model.
        UnknownModelError, UnknownDeviceError: no such model or device.
        UnavailableError: Redis does not answer.
        OverloadedError: too much work waits for the device.
    """
    space = space_of(services.stores.catalog, request, device=request.device)
    base, _, own = space.model.partition("@")
    if own and device_kind(request.device) not in ("auto", own):
        raise BadInputError(
            f"model {space.model!r} is the version of {base!r} for {own} and does not run on {request.device}; "
            f"use model {base!r}, or omit device"
        )
    route = services.fleet.router.route(space, wanted=request.device)
    services.fleet.backlog.check(Lane.BULK, route.device)
    return space, route


def as_new_job(services: Services, request: JobRequest, submitter: Submitter) -> NewJob:
    """The job that a request describes, if it may be submitted now.

    Raises:
        BadInputError: the server cannot call this webhook URL.
        QuotaExceededError: the submitter may keep no more texts.
        SemelError: whatever `destination` raises.
    """
    services.stores.disk_use.check(submitter)
    space, route = destination(services, request)
    space = space.within(submitter.cache_namespace)
    if request.webhook_url is not None:
        check_webhook(services.settings, request.webhook_url)
    return NewJob(
        space=space,
        lane=Lane.BULK,
        device=route.device,
        why=route.why,
        waits=route.waits,
        truncate=request.truncate,
        if_no_worker=request.if_no_worker,
        metadata=request.metadata,
        submitter=submitter,
    )


def create(services: Services, request: JobRequest, submitter: Submitter = NOBODY) -> Job:
    """Create a job without texts.

    Raises:
        BadInputError: the server cannot call this webhook URL.
        SemelError: whatever `destination` raises.
    """
    services.fleet.ping()  # refuse now, with the reason, rather than accept a job that cannot start
    job = services.stores.jobs.create(as_new_job(services, request, submitter))
    if request.webhook_url is not None:
        services.stores.webhooks.add(job.id, request.webhook_url)
    return job


def job_ingest(
    services: Services,
    job: Job,
    *,
    text_field: str = "text",
    strict: bool = False,
    submitter: Submitter = NOBODY,
    reservation: Reservation | None = None,
) -> JobIngest:
    """The ingest for a job in state `validating`. Raises UnknownModelError when its model is gone."""
    return JobIngest(
        services.settings,
        services.stores.catalog.space(job.model, job.prompt_name).within(job.cache_namespace).with_variant(job.variant),
        job,
        jobs=services.stores.jobs,
        store=services.stores.vectors,
        dispatcher=services.fleet.dispatcher,
        on_added=services.watch.metrics.ingested,
        check_quota=lambda: services.stores.disk_use.check(submitter),
        text_field=text_field,
        strict=strict,
        reservation=reservation,
    )


@contextmanager
def new_job(
    services: Services, request: JobRequest, *, submitter: Submitter = NOBODY, reservation: Reservation | None = None
) -> Iterator[Ingest[Job]]:
    """The ingest of a new job; an error in the block ends the job as failed, so that no client waits for it.

    What is refused as bad input, or because of a quota, leaves no job: it was never accepted.

    Raises:
        SemelError: whatever `create` raises.
    """
    job = create(services, request, submitter)
    try:
        yield job_ingest(
            services,
            job,
            text_field=request.text_field,
            strict=request.strict,
            submitter=submitter,
            reservation=reservation,
        )
    except ConflictError:  # the job was cancelled meanwhile, which is not a failure
        raise
    except ClientDisconnect:
        cut_off = ItemError("upload_cut_off", "the client disconnected before it had sent all texts")
        services.stores.jobs.fail(job.id, cut_off)
        raise
    except (BadInputError, QuotaExceededError) as error:
        services.stores.jobs.fail(job.id, ItemError.of(error))
        services.stores.jobs.delete(job.id)
        raise
    except SemelError as error:
        services.stores.jobs.fail(job.id, ItemError.of(error))
        raise
    except Exception as error:
        services.stores.jobs.fail(job.id, ItemError(SemelError.code, f"{type(error).__name__}: {error}"))
        raise
