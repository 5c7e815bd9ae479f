"""Reads the rows of a submission from its body: JSON; streamed NDJSON; CSV or Parquet; or a form with a file."""

import asyncio
import hashlib
import shutil
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from concurrent.futures import Future
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TypeAlias, TypeVar

from fastapi import Request
from fastapi.concurrency import contextmanager_in_threadpool, run_in_threadpool
from pydantic import ValidationError
from python_multipart.multipart import parse_options_header

from semel.api.edge.problems import as_bad_input
from semel.api.edge.reading import read_query
from semel.api.jobs.ingest import Ingest
from semel.api.jobs.uploads import NDJSON, PARQUET, content_type, file_of, named, read_form, received
from semel.api.jobs.wire import JobQuery, JobRequest, check_metadata
from semel.api.services import Services
from semel.errors import BadInputError, BodyTooLargeError
from semel.rows import COMPRESSED, FILE_SUFFIXES, has_known_format, read_records
from semel.values.text import Extra

T = TypeVar("T")

SMALL_BODY_BYTES = 32 << 10
"""A larger body gains nothing from being small: reading it takes longer than the transaction that it would share."""

_FEED_BYTES = 256 << 10
"""Bytes of NDJSON parsed at a time: enough to keep the event loop free, few enough to keep memory flat."""

_TOUCH_S = 10.0
"""How often a slow upload is recorded as active; a sweep ends one that was silent for two minutes."""

TABLES = {"text/csv": ".csv", "text/tab-separated-values": ".tsv", **PARQUET}
"""Content type → file suffix of tables, which are read only once they have arrived completely."""


class HashedBody:
    """The body of a request as it arrives, and a SHA-256 over its query string, content type and body.

    A form's boundary does not count: clients choose another one each time.
    """

    def __init__(self, request: Request) -> None:
        self._request = request
        kind, parameters = parse_options_header(request.headers.get("content-type"))
        self._boundary = parameters.pop(b"boundary", b"") if kind == b"multipart/form-data" else b""
        self._hash = hashlib.sha256(repr((request.url.query, kind, sorted(parameters.items()))).encode())
        self._held = b""  # the end of what has arrived, in which a boundary may begin

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for part in self._request.stream():
            self._update(part)
            yield part

    def _update(self, part: bytes) -> None:
        if not self._boundary:
            self._hash.update(part)
            return
        *before, rest = (self._held + part).split(b"--" + self._boundary)
        for piece in before:
            self._hash.update(piece + b"--")
        kept = len(self._boundary) + 1
        self._hash.update(rest[:-kept])
        self._held = rest[-kept:]

    @property
    def digest(self) -> bytes:
        """The SHA-256 digest of what has arrived so far, 32 bytes."""
        whole = self._hash.copy()
        whole.update(self._held)
        return whole.digest()


OpenIngest: TypeAlias = Callable[[Services, JobRequest], AbstractContextManager[Ingest[T]]]
"""Opens the ingest that receives the rows of a submission; an error in the block ends the submission."""


async def receive(
    services: Services,
    request: Request,
    body: AsyncIterable[bytes],
    open_ingest: OpenIngest[T],
    *,
    small: Callable[[JobRequest], "Future[T | None]"] | None = None,
) -> T:
    """Feed the rows in a request's body to an ingest, and return the ingest's result.

    The content type decides how the body is read. An option in a JSON body or a form overrides one in the URL.

    Args:
        small: takes a small JSON body instead of the ingest; its result is None if it declines.

    Raises:
        BadInputError: an unknown option or content type, or a body that cannot be read.
        BodyTooLargeError: the body is above its limit.
        SemelError: whatever `open_ingest` raises.
    """
    _refuse_unknown(request.query_params, "query parameter")
    query = read_query(request, JobQuery)
    kind = content_type(request, "application/json")
    if kind == NDJSON:
        return await _stream(body, services, _options(query), open_ingest)
    if kind in TABLES:
        async with received(
            services.stores.files, body, TABLES[kind], max_bytes=services.settings.max_file_bytes
        ) as path:
            return await run_in_threadpool(_read_file, services, path, _options(query), open_ingest)
    if kind == "multipart/form-data":
        return await _receive_form(services, request, body, query, open_ingest)
    if kind != "application/json":
        known = ", ".join(("application/json", NDJSON, *TABLES, "multipart/form-data"))
        raise BadInputError(f"unsupported Content-Type {kind!r} for a job (supported: {known})")
    job_request, size = await _read_json(body, services, query)
    if small is not None and size <= SMALL_BODY_BYTES:
        result = await asyncio.wrap_future(small(job_request))
        if result is not None:
            return result
    return await run_in_threadpool(_read_list, services, job_request, open_ingest)


async def _receive_form(
    services: Services, request: Request, body: AsyncIterable[bytes], query: JobQuery, open_ingest: OpenIngest[T]
) -> T:
    form = await read_form(request, max_bytes=services.settings.max_file_bytes, body=body)
    try:
        upload = file_of(form)
        fields = {name: value for name, value in form.items() if isinstance(value, str)}
        _refuse_unknown(fields, "form field")
        options = _validated(lambda: _options(JobQuery.model_validate(query.model_dump(exclude_unset=True) | fields)))
        name = Path(upload.filename or "")
        if not has_known_format(name):
            raise BadInputError(
                f"file: the name must end in {', '.join(FILE_SUFFIXES)}, which shows the format; all but Parquet may "
                f"be compressed ({', '.join(COMPRESSED)})"
            )
        suffix = "".join(name.suffixes[-2:] if name.suffix.lower() in COMPRESSED else name.suffixes[-1:]).lower()
        with services.stores.files.writing(suffix) as target:
            await run_in_threadpool(shutil.copyfileobj, upload.file, target, 1 << 20)
            await run_in_threadpool(target.flush)
            return await run_in_threadpool(_read_file, services, Path(target.name), options, open_ingest)
    finally:
        await form.close()


async def _read_json(body: AsyncIterable[bytes], services: Services, query: JobQuery) -> tuple[JobRequest, int]:
    """The submission in a JSON body, and the size of the body in bytes."""
    limit = services.settings.max_body_bytes
    whole = bytearray()
    async for part in body:
        whole += part
        if len(whole) > limit:
            raise BodyTooLargeError(
                f"the body is larger than {limit} bytes (SEMEL_MAX_BODY_BYTES); send NDJSON, which is streamed: "
                f"Content-Type: {NDJSON}"
            )
    job_request = _validated(lambda: JobRequest.model_validate_json(bytes(whole)))
    check_metadata(job_request.metadata)
    given = query.given()
    missing = {name: given[name] for name in given.keys() - job_request.model_fields_set}
    return job_request.model_copy(update=missing), len(whole)


def _refuse_unknown(names: Iterable[str], what: str) -> None:
    for name in names:
        if name not in JobQuery.model_fields:
            raise BadInputError(f"unknown {what} {name!r} (known: {', '.join(sorted(JobQuery.model_fields))})")


def _options(query: JobQuery) -> JobRequest:
    """The options of a submission whose rows are not in a JSON list."""
    return JobRequest(input=[], **query.given())


def _validated(validate: Callable[[], JobRequest]) -> JobRequest:
    try:
        return validate()
    except ValidationError as error:
        raise as_bad_input(error) from None


def _read_list(services: Services, job_request: JobRequest, open_ingest: OpenIngest[T]) -> T:
    if not job_request.input:
        raise BadInputError("input is an empty list; send at least one text")
    with open_ingest(services, job_request) as ingest:
        for i, row in enumerate(job_request.input):
            if isinstance(row, dict):
                ingest.add_row(row, f"input[{i}]")
            else:
                ingest.add(row)
        return ingest.finish()


def _read_file(services: Services, path: Path, options: JobRequest, open_ingest: OpenIngest[T]) -> T:
    """Feed the rows of a file; a row that cannot be read keeps its place and carries its error."""
    with open_ingest(services, options) as ingest, named("the file", path):
        limit = services.settings.max_text_bytes
        most = services.settings.max_file_bytes
        records = read_records(path, ingest.fields, max_text_bytes=limit, isolate=True, max_bytes=most)
        for number, record in enumerate(records, start=1):
            if record.error:
                ingest.add_unusable(f"row {number}: {record.error}", Extra(record.fields.get("id"), {}))
            else:
                ingest.add_row(record.fields, f"row {number}")
        return ingest.finish()


async def _stream(body: AsyncIterable[bytes], services: Services, options: JobRequest, open_ingest: OpenIngest[T]) -> T:
    """Feed NDJSON as it arrives."""
    buffer, touched = bytearray(), time.monotonic()
    async with contextmanager_in_threadpool(open_ingest(services, options)) as ingest:
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
