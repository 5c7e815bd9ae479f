"""Bodies that go to disk while they arrive: forms with a file, and tables."""

from collections.abc import AsyncIterable, AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from semel.errors import BadInputError, BodyTooLargeError
from semel.tasks.jobs.files import FileStore

_ENVELOPE_BYTES = 64 << 10
"""What a form may have beside the file."""

_WRITE_BYTES = 1 << 20

NDJSON = "application/x-ndjson"

PARQUET = {"application/vnd.apache.parquet": ".parquet", "application/x-parquet": ".parquet"}
"""Content types of Parquet, and the suffix of such files."""


def content_type(request: Request, default: str = "") -> str:
    """Without its parameters, in lower case."""
    return request.headers.get("content-type", default).partition(";")[0].strip().lower()


async def read_form(request: Request, *, max_bytes: int, body: AsyncIterable[bytes] | None = None) -> FormData:
    """A multipart form with at most one file, which lies in a temporary file of its own. Close it.

    Args:
        body: the request's, when somebody else looks at it too.

    Raises:
        BadInputError: the body is no such form.
        BodyTooLargeError: as soon as it is.
    """
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise BadInputError("a file is uploaded as multipart/form-data, with the fields file and purpose")
    stream = bounded(request.stream() if body is None else body, max_bytes, slack=_ENVELOPE_BYTES)
    try:
        parser = MultiPartParser(request.headers, cast(Any, stream), max_files=1, max_fields=20)
        return await parser.parse()
    except (MultiPartException, KeyError) as error:  # KeyError: no boundary in the header
        raise BadInputError(f"the body is not multipart/form-data: {error}") from None


def file_of(form: FormData) -> UploadFile:
    """The form's field `file`. Raises BadInputError when there is none."""
    upload = form.get("file")
    if not isinstance(upload, UploadFile):
        raise BadInputError("file: the form has no file of that name")
    return upload


@asynccontextmanager
async def received(files: FileStore, body: AsyncIterable[bytes], suffix: str, *, max_bytes: int) -> AsyncIterator[Path]:
    """A body as a temporary file with that suffix. Raises BodyTooLargeError, StorageFullError."""
    with files.writing(suffix) as target:
        await _spool(bounded(body, max_bytes), target)
        yield Path(target.name)


async def bounded(body: AsyncIterable[bytes], max_bytes: int, *, slack: int = 0) -> AsyncIterator[bytes]:
    """The same bytes. Raises BodyTooLargeError when there are more than `max_bytes` and what may stand around them."""
    read = 0
    async for part in body:
        read += len(part)
        if read > max_bytes + slack:
            raise BodyTooLargeError(f"the file is larger than {max_bytes} bytes (SEMEL_MAX_FILE_BYTES); split it")
        yield part


async def _spool(body: AsyncIterable[bytes], target: BinaryIO) -> None:
    """Write a body to a file, a megabyte at a time, without holding up the event loop."""
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
    """Errors inside speak of `name`, not of the server's temporary file."""
    try:
        yield
    except BadInputError as error:
        raise BadInputError(str(error).replace(str(path), name).replace(path.name, name)) from None
