"""A job on its way in: NDJSON, streamed; JSON; CSV, Parquet or a form with a file; once under an idempotency key."""

import hashlib
import json
import shutil
import time
import uuid
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from fastapi import Request
from fastapi.concurrency import contextmanager_in_threadpool, run_in_threadpool
from pydantic import ValidationError
from starlette.requests import ClientDisconnect

from semel.api.dialects.embedding import space_of
from semel.api.dialects.openai import JobRequest, as_bad_input
from semel.api.jobs.ingest import Ingest, JobIngest
from semel.api.jobs.uploads import NDJSON, PARQUET, content_type, file_of, named, read_form, received
from semel.api.jobs.webhooks import check_webhook
from semel.api.services import Services
from semel.errors import BadInputError, BodyTooLargeError, ConflictError, SemelError
from semel.rows import FILE_SUFFIXES, read_records
from semel.tasks.queue.sender import Route
from semel.values import Extra, ItemError, Job, Lane, Space, device_kind

T = TypeVar("T")

_FEED_BYTES = 256 << 10
"""Bytes parsed at a time: enough to leave the event loop alone, little enough to keep memory flat."""

_TOUCH_S = 10.0
"""A slow upload says this often that it lives; one that is silent for two minutes is given up."""

TABLES = {"text/csv": ".csv", **PARQUET}
"""Content types of tables, which are read when they are complete, and the suffix of such files."""


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


Opening: TypeAlias = Callable[[Services, JobRequest], AbstractContextManager[Ingest[T]]]
"""What takes the rows of a submission; left with an error when that ends it."""


async def receive(
    services: Services, request: Request, body: AsyncIterable[bytes], query: JobRequest, opening: Opening[T]
) -> T:
    """What becomes of the rows in the body of a request, which are read by its content type.

    Args:
        query: what the URL says; a JSON body or a form may say it too, and then wins.

    Raises:
        BadInputError, BodyTooLargeError, and what `opening` raises.
    """
    _refuse_unknown(request.query_params, "the URL")
    kind = content_type(request, "application/json")
    if kind == NDJSON:
        return await _stream(body, services, query, opening)
    if kind in TABLES:
        async with received(services.files, body, TABLES[kind], max_bytes=services.settings.max_file_bytes) as path:
            return await run_in_threadpool(_read_file, services, path, query, opening)
    if kind == "multipart/form-data":
        return await _receive_form(services, request, body, query, opening)
    if kind != "application/json":
        known = ", ".join(("application/json", NDJSON, *TABLES, "multipart/form-data"))
        raise BadInputError(f"a job is sent as {known}, not as {kind}")
    return await run_in_threadpool(_read_list, services, await _read_json(body, services, query), opening)


async def _receive_form(
    services: Services, request: Request, body: AsyncIterable[bytes], query: JobRequest, opening: Opening[T]
) -> T:
    form = await read_form(request, max_bytes=services.settings.max_file_bytes, body=body)
    try:
        upload = file_of(form)
        _refuse_unknown((name for name, value in form.items() if isinstance(value, str)), "the form")
        said: dict[str, Any] = {k: v for k, v in form.items() if isinstance(v, str)}
        if "metadata" in said:
            said["metadata"] = metadata_of(said["metadata"])
        wanted = _checked(lambda: JobRequest.model_validate({**query.model_dump(), **said, "input": []}))
        suffix = Path(upload.filename or "").suffix.lower()
        if suffix not in FILE_SUFFIXES:
            raise BadInputError(f"file: the name must end in {', '.join(FILE_SUFFIXES)}, which says what is in it")
        with services.files.writing(suffix) as target:
            await run_in_threadpool(shutil.copyfileobj, upload.file, target, 1 << 20)
            await run_in_threadpool(target.flush)
            return await run_in_threadpool(_read_file, services, Path(target.name), wanted, opening)
    finally:
        await form.close()


async def _read_json(body: AsyncIterable[bytes], services: Services, query: JobRequest) -> JobRequest:
    limit = services.settings.max_body_bytes
    whole = bytearray()
    async for part in body:
        whole += part
        if len(whole) > limit:
            raise BodyTooLargeError(
                f"the body is larger than {limit} bytes (SEMEL_MAX_BODY_BYTES); send NDJSON, which is streamed: "
                f"Content-Type: {NDJSON}"
            )
    said = _checked(lambda: JobRequest.model_validate_json(bytes(whole)))
    return said.model_copy(update={k: getattr(query, k) for k in query.model_fields_set - said.model_fields_set})


def _refuse_unknown(names: Iterable[str], where: str) -> None:
    known = JobRequest.model_fields.keys() - {"input"}
    for name in names:
        if name not in known:
            raise BadInputError(f"{where} says {name!r}, which no job has (known: {', '.join(sorted(known))})")


def _checked(validate: Callable[[], JobRequest]) -> JobRequest:
    try:
        return validate()
    except ValidationError as error:
        raise as_bad_input(error) from None


def metadata_of(text: str) -> dict[str, str]:
    """Raises BadInputError unless it is a JSON object of strings."""
    try:
        given = json.loads(text)
    except (ValueError, RecursionError):
        given = None
    if not isinstance(given, dict) or not all(isinstance(v, str) for v in given.values()):
        raise BadInputError("metadata must be a JSON object whose values are strings")
    check_metadata(given)
    return given


def check_metadata(metadata: dict[str, str]) -> None:
    """Raises BadInputError for what no answer could repeat."""
    for name, value in metadata.items():
        try:
            (name + value).encode()
        except UnicodeEncodeError:
            raise BadInputError(f"metadata: {name!a} has a lone surrogate, which is not Unicode text") from None


def destination(services: Services, wanted: JobRequest) -> tuple[Space, Route]:
    """Where a job's texts go, if it may be submitted now.

    Raises:
        BadInputError, UnavailableError, OverloadedError, UnknownModelError, UnknownDeviceError.
    """
    services.ping_redis()  # refuse now, with the reason, rather than accept what cannot start
    space = space_of(services.catalog, wanted, device=wanted.device)
    base, _, own = space.model.partition("@")
    if own and device_kind(wanted.device) not in ("auto", own):
        raise BadInputError(
            f"model {space.model!r} is the source that {base!r} has for {own}, and {wanted.device} does not serve it; "
            f"ask for {base!r}, or leave out device"
        )
    route = services.router.route(space, wanted=wanted.device)
    services.backlog.check(Lane.BULK, route.device)
    return space, route


def create(services: Services, wanted: JobRequest) -> Job:
    """A job without texts. Raises what `destination` raises."""
    space, route = destination(services, wanted)
    if wanted.webhook_url is not None:
        check_webhook(services.settings, wanted.webhook_url)
    job = services.jobs.create(
        space,
        lane=Lane.BULK,
        device=route.device,
        why=route.why,
        truncate=wanted.truncate,
        if_no_worker=wanted.if_no_worker,
        metadata=wanted.metadata,
    )
    if wanted.webhook_url is not None:
        services.webhooks.add(job.id, wanted.webhook_url)
    return job


def _read_list(services: Services, wanted: JobRequest, opening: Opening[T]) -> T:
    if not wanted.input:
        raise BadInputError("input is an empty list; send at least one text")
    with opening(services, wanted) as ingest:
        for i, row in enumerate(wanted.input):
            if isinstance(row, dict):
                ingest.add_row(row, f"input[{i}]")
            else:
                ingest.add(row)
        return ingest.finish()


def _read_file(services: Services, path: Path, wanted: JobRequest, opening: Opening[T]) -> T:
    """A row that cannot be read keeps its place and carries its error."""
    with opening(services, wanted) as ingest, named("the file", path):
        limit = services.settings.max_text_bytes
        for number, record in enumerate(read_records(path, ingest.fields, max_text_bytes=limit), start=1):
            bad = next((n for n in ingest.fields if not isinstance(record.fields.get(n), str)), None)
            if record.error or bad:
                told = record.error or f'has no string in "{bad}"'
                ingest.add_bad(f"row {number}: {told}", Extra(record.fields.get("id"), {}))
            else:
                ingest.add_row(record.fields, f"row {number}")
        return ingest.finish()


@contextmanager
def new_job(services: Services, wanted: JobRequest) -> Iterator[Ingest[Job]]:
    """A new job to feed; an error ends it as failed, so that nobody waits for it. Raises what `create` raises."""
    job = create(services, wanted)
    try:
        yield JobIngest(services, job, text_field=wanted.text_field)
    except ConflictError:  # cancelled meanwhile: that is its end, not a failure
        raise
    except ClientDisconnect:
        services.jobs.fail(job.id, ItemError("upload_cut_off", "the client went away while it sent the texts"))
        raise
    except SemelError as error:
        services.jobs.fail(job.id, ItemError.of(error))
        raise
    except Exception as error:
        services.jobs.fail(job.id, ItemError(SemelError.code, f"{type(error).__name__}: {error}"))
        raise


async def _stream(body: AsyncIterable[bytes], services: Services, wanted: JobRequest, opening: Opening[T]) -> T:
    """Feed NDJSON as it arrives."""
    buffer, touched = bytearray(), time.monotonic()
    async with contextmanager_in_threadpool(opening(services, wanted)) as ingest:
        async for part in body:
            buffer += part
            if time.monotonic() - touched > _TOUCH_S:
                touched = time.monotonic()
                await run_in_threadpool(ingest.touch)
            if len(buffer) >= _FEED_BYTES:
                await run_in_threadpool(ingest.feed_lines, bytes(buffer))
                buffer.clear()
        await run_in_threadpool(ingest.feed_lines, bytes(buffer))
        return await run_in_threadpool(ingest.finish)
