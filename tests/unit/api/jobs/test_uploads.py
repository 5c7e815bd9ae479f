"""Bodies that go to disk while they arrive."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import Request
from starlette.datastructures import UploadFile

from semel.api.jobs import uploads
from semel.api.jobs.uploads import bounded, content_type, file_of, named, read_form, received
from semel.errors import BadInputError, BodyTooLargeError, ConflictError
from tests.support.parts import Parts

FORM = "multipart/form-data; boundary=b"


def field(name: str, value: str, filename: str | None = None) -> bytes:
    file = "" if filename is None else f'; filename="{filename}"'
    return f'--b\r\ncontent-disposition: form-data; name="{name}"{file}\r\n\r\n{value}\r\n'.encode()


def request(kind: str | None, *parts: bytes) -> Request:
    waiting = list(parts)

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": waiting.pop(0), "more_body": bool(waiting)}

    headers = [] if kind is None else [(b"content-type", kind.encode())]
    return Request({"type": "http", "method": "POST", "headers": headers}, receive)


async def stream(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


def parsed(*parts: bytes, max_bytes: int = 1000, kind: str | None = FORM) -> dict[str, Any]:
    async def read() -> dict[str, Any]:
        form = await read_form(request(kind, *parts), max_bytes=max_bytes)
        found = {name: await value.read() if isinstance(value, UploadFile) else value for name, value in form.items()}
        await form.close()
        return found

    return asyncio.run(read())


# Content types


@pytest.mark.parametrize("sent", ["text/csv", "Text/CSV", " text/csv ; charset=utf-8"])
def test_a_content_type_is_compared_without_case_and_parameters(sent: str) -> None:
    assert content_type(request(sent)) == "text/csv"


def test_a_request_without_a_content_type_gets_the_default() -> None:
    assert content_type(request(None), "application/json") == "application/json"
    assert content_type(request(None)) == ""


# Forms


def test_a_form_has_a_file_and_fields() -> None:
    form = parsed(field("purpose", "batch"), field("file", "one\ntwo", "x.jsonl"), b"--b--\r\n")
    assert form == {"purpose": "batch", "file": b"one\ntwo"}


def test_a_form_may_be_read_from_a_body_that_is_looked_at_on_the_way() -> None:
    seen: list[bytes] = []

    async def looked_at() -> AsyncIterator[bytes]:
        async for part in stream(field("file", "x", "x.txt"), b"--b--\r\n"):
            seen.append(part)
            yield part

    async def read() -> bytes:
        form = await read_form(request(FORM, b"not this"), max_bytes=100, body=looked_at())
        content = await file_of(form).read()
        await form.close()
        return content

    assert asyncio.run(read()) == b"x"
    assert len(seen) == 2


@pytest.mark.parametrize("kind", [None, "application/json", "application/x-www-form-urlencoded"])
def test_what_is_no_form_is_refused(kind: str | None) -> None:
    with pytest.raises(BadInputError, match="upload the file as multipart/form-data"):
        parsed(b"{}", kind=kind)


@pytest.mark.parametrize(
    "parts",
    [
        (b"no form",),
        (field("file", "a", "a"), field("file", "b", "b"), b"--b--\r\n"),
        (*(field(f"f{i}", "x") for i in range(21)), b"--b--\r\n"),
    ],
    ids=["no boundary", "two files", "21 fields"],
)
def test_a_broken_or_overfull_form_is_refused(parts: tuple[bytes, ...]) -> None:
    with pytest.raises(BadInputError, match="not valid multipart/form-data"):
        parsed(*parts)


def test_a_form_without_a_boundary_in_its_header_is_refused() -> None:
    with pytest.raises(BadInputError, match="not valid multipart/form-data"):
        parsed(b"x", kind="multipart/form-data")


def test_a_form_may_be_a_little_larger_than_its_file() -> None:
    content = "x" * 1000
    assert parsed(field("file", content, "x.txt"), b"--b--\r\n", max_bytes=1000)["file"] == content.encode()
    with pytest.raises(BodyTooLargeError, match="larger than 1000 bytes"):
        parsed(field("file", "x" * 67_000, "x.txt"), b"--b--\r\n", max_bytes=1000)


@pytest.mark.parametrize("name", ["other", "File"])
def test_a_form_without_its_file_is_refused(name: str) -> None:
    async def read() -> None:
        form = await read_form(request(FORM, field(name, "x", "x.txt"), b"--b--\r\n"), max_bytes=100)
        try:
            file_of(form)
        finally:
            await form.close()

    with pytest.raises(BadInputError, match="file: the form has no file in this field"):
        asyncio.run(read())


def test_a_text_in_the_field_of_the_file_is_no_file() -> None:
    async def read() -> None:
        file_of(await read_form(request(FORM, field("file", "x"), b"--b--\r\n"), max_bytes=100))

    with pytest.raises(BadInputError, match="the form has no file"):
        asyncio.run(read())


# Bodies on disk


def written(running: Parts, *parts: bytes, max_bytes: int = 100) -> bytes:
    async def write() -> bytes:
        async with received(running.services.stores.files, stream(*parts), ".csv", max_bytes=max_bytes) as path:
            assert path.suffix == ".csv"
            return path.read_bytes()

    return asyncio.run(write())


def test_a_body_is_complete_on_disk_and_gone_afterwards(running: Parts) -> None:
    assert written(running, b"a,b\n", b"", b"1,2\n") == b"a,b\n1,2\n"
    assert list((running.services.settings.home / "files").iterdir()) == []


def test_a_body_is_written_in_large_parts(running: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "_WRITE_BYTES", 8)
    content = [bytes([i]) * 5 for i in range(10)]
    assert written(running, *content) == b"".join(content)


def test_a_body_above_its_limit_leaves_nothing_behind(running: Parts) -> None:
    with pytest.raises(BodyTooLargeError):
        written(running, b"x" * 60, b"x" * 60)
    assert list((running.services.settings.home / "files").iterdir()) == []


def bounded_read(*parts: bytes, max_bytes: int, slack: int = 0) -> bytes:
    async def read() -> bytes:
        return b"".join([part async for part in bounded(stream(*parts), max_bytes, slack=slack)])

    return asyncio.run(read())


def test_a_body_of_exactly_its_limit_passes() -> None:
    assert bounded_read(b"12345", b"67890", max_bytes=10) == b"1234567890"
    assert bounded_read(b"12345", b"67890", max_bytes=8, slack=2) == b"1234567890"


def test_a_body_above_its_limit_ends_at_once() -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b"x" * 4
        raise AssertionError("it reads on")

    async def read() -> list[bytes]:
        return [part async for part in bounded(endless(), 10)]

    with pytest.raises(BodyTooLargeError, match=r"larger than 10 bytes \(SEMEL_MAX_FILE_BYTES\); split it"):
        asyncio.run(read())


# Names in errors


@pytest.mark.parametrize("message", ["/tmp/part-1.csv:3: not CSV", "part-1.csv: no column 'text'"])
def test_errors_name_the_file_and_no_path_of_the_server(message: str) -> None:
    with pytest.raises(BadInputError, match=r"^the file") as refused, named("the file", Path("/tmp/part-1.csv")):
        raise BadInputError(message)
    assert "part-1" not in str(refused.value)


def test_other_errors_pass_as_they_are() -> None:
    with pytest.raises(ConflictError, match="part-1"), named("the file", Path("/tmp/part-1.csv")):
        raise ConflictError("part-1")
