"""A job on its way in: one JSON body or streamed NDJSON, and once only under an idempotency key."""

import hashlib
import time
import uuid
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from pydantic import ValidationError
from starlette.requests import ClientDisconnect

from semel.api.ingest import Ingest
from semel.api.schemas import JobRequest
from semel.api.services import Services
from semel.errors import BadInputError, BodyTooLargeError, ConflictError, SemelError
from semel.values import ItemError, Job, Lane

_FEED_BYTES = 256 << 10
"""Bytes parsed at a time: enough to leave the event loop alone, little enough to keep memory flat."""

_TOUCH_S = 10.0
"""A slow upload says this often that it lives; one that is silent for two minutes is given up."""

NDJSON = "application/x-ndjson"


class HashedBody:
    """The body of a request as it arrives, and the SHA-256 of it with the parameters beside it."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._hash = hashlib.sha256(f"{request.url.query}\n{request.headers.get('content-type')}\n".encode())

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for part in self._request.stream():
            self._hash.update(part)
            yield part

    @property
    def digest(self) -> bytes:
        """Of what has arrived so far."""
        return self._hash.digest()


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
    keys, owner = services.idempotency, uuid.uuid4().hex
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
    return await run_in_threadpool(services.jobs.get, earlier.job_id)


async def read_json(body: AsyncIterable[bytes], services: Services) -> JobRequest:
    """A job as one JSON body. Raises BadInputError, BodyTooLargeError."""
    limit = services.settings.max_body_bytes
    whole = bytearray()
    async for part in body:
        whole += part
        if len(whole) > limit:
            raise BodyTooLargeError(
                f"the body is larger than {limit} bytes (SEMEL_MAX_BODY_BYTES); send NDJSON, which is streamed: "
                f"Content-Type: {NDJSON}"
            )
    try:
        return JobRequest.model_validate_json(bytes(whole))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the body"
        raise BadInputError(f"{where}: {first['msg']}") from None


def create(services: Services, wanted: JobRequest) -> Job:
    """A job without texts. Raises UnavailableError, OverloadedError, UnknownModelError, UnknownDeviceError."""
    services.ping_redis()  # refuse now, with the reason, rather than accept what cannot start
    name = wanted.model or services.settings.default_model
    space = services.catalog.space(name, wanted.prompt_name)
    route = services.router.route(name, wanted=wanted.device)
    services.backlog.check(Lane.BULK, route.device)
    return services.jobs.create(
        space, lane=Lane.BULK, device=route.device, why=route.why, truncate=wanted.truncate, metadata=wanted.metadata
    )


def submit(services: Services, wanted: JobRequest) -> Job:
    """A job with all its texts at hand."""
    if not wanted.input:
        raise BadInputError("input is an empty list; send at least one text")
    job = create(services, wanted)
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


async def stream(body: AsyncIterable[bytes], services: Services, job: Job) -> Job:
    """Feed a job with NDJSON as it arrives. Raises BadInputError: the job has failed then."""
    ingest = Ingest(services, job)
    buffer, touched = bytearray(), time.monotonic()
    try:
        async for part in body:
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
