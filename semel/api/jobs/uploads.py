"""Writes request bodies to disk while they arrive: forms with a file, and tables."""

from collections.abc import AsyncIterable, AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from semel.errors import BadInputError, BodyTooLargeError
from semel.tasks.jobs.files import FileStore

_ENVELOPE_BYTES = 64 << 10
"""Bytes that a form may have in addition to the file."""

_WRITE_BYTES = 1 << 20

NDJSON = "application/x-ndjson"

PARQUET = {"application/vnd.apache.parquet": ".parquet", "application/x-parquet": ".parquet"}
"""Content types of Parquet → file suffix."""


def content_type(request: Request, default: str = "") -> str:
    """The content type of a request, in lower case and without parameters such as charset."""
    return request.headers.get("content-type", default).partition(";")[0].strip().lower()


async def read_form(
    request: Request,
    *,
    max_bytes: int,
    body: AsyncIterable[bytes] | None = None,
    fields: str = "file and purpose",
    limit: str = "SEMEL_MAX_FILE_BYTES",
) -> FormData:
    """Parse a multipart form with at most one file, which is kept in a temporary file; the caller closes the form.

    Args:
        body: read this instead of the request's own stream, for example to hash it on the way.
        fields, limit: what the form has, and what bounds it, for messages.

    Raises:
        BadInputError: the body is not such a form.
        BodyTooLargeError: the body is too large; raised as soon as the limit is passed.
    """
    kind, parameters = parse_options_header(request.headers.get("content-type"))
    if kind != b"multipart/form-data":
        raise BadInputError(f"upload the file as multipart/form-data, with the fields {fields}")
    charset = parameters.get(b"charset", b"utf-8").decode("latin-1")
    if charset.lower() not in ("utf-8", "utf8"):  # Python would decode names with codecs that make no Unicode text
        raise BadInputError(f"the form's charset is {charset!r}: send it as UTF-8")
    stream = bounded(request.stream() if body is None else body, max_bytes, slack=_ENVELOPE_BYTES, limit=limit)
    try:
        parser = MultiPartParser(request.headers, cast(Any, stream), max_files=1, max_fields=20)
        return await parser.parse()
    except (MultiPartException, KeyError) as error:  # KeyError: no boundary in the header
        raise BadInputError(f"the body is not valid multipart/form-data: {error}") from None


def file_of(form: FormData, field: str = "file") -> UploadFile:
    """The file in a field of the form. Raises BadInputError when there is none."""
    upload = form.get(field)
    if not isinstance(upload, UploadFile):
        raise BadInputError(f"{field}: the form has no file in this field")
    return upload


@asynccontextmanager
async def received(files: FileStore, body: AsyncIterable[bytes], suffix: str, *, max_bytes: int) -> AsyncIterator[Path]:
    """Write a body to a temporary file that lasts as long as the block.

    Raises:
        BodyTooLargeError: the body has more than `max_bytes`.
        StorageFullError: the disk has no room.
    """
    with files.writing(suffix) as target:
        await _spool(bounded(body, max_bytes), target)
        yield Path(target.name)


async def bounded(
    body: AsyncIterable[bytes], max_bytes: int, *, slack: int = 0, limit: str = "SEMEL_MAX_FILE_BYTES"
) -> AsyncIterator[bytes]:
    """Pass a body through, up to a limit.

    Args:
        slack: bytes allowed on top of `max_bytes`, for example for the other fields of a form.
        limit: what bounds it, for the message.

    Raises:
        BodyTooLargeError: the body is larger.
    """
    read = 0
    async for part in body:
        read += len(part)
        if read > max_bytes + slack:
            raise BodyTooLargeError(f"the file is larger than {max_bytes} bytes ({limit}); split it")
        yield part


async def _spool(body: AsyncIterable[bytes], target: BinaryIO) -> None:
    """Write a body to a file, a megabyte at a time, without blocking the event loop."""
    buffer = bytearray()
    async for part in body:
        buffer += part
        if len(buffer) >= _WRITE_BYTES:
            await run_in_threadpool(target.write, bytes(buffer))
            buffer.clear()
    await run_in_threadpool(target.write, bytes(buffer))
    await run_in_threadpool(target.flush)


@contextmanager
def named(name: str, path: Path) -> Iterator[None]:
    """Make errors in the block mention `name` instead of the path of the server's temporary file.

    Raises:
        BadInputError: the error raised in the block, reworded.
    """
    try:
        yield
    except BadInputError as error:
        raise BadInputError(str(error).replace(str(path), name).replace(path.name, name)) from None
