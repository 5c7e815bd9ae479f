"""Bodies that are read while they arrive, and the digest of them."""

import asyncio
import gzip
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from fastapi import Request

from semel.api.jobs import bodies
from semel.api.jobs.bodies import HashedBody, receive
from semel.api.jobs.ingest import Ingest
from semel.api.jobs.wire import JobRequest
from semel.api.services import Services
from semel.errors import BadInputError, BodyTooLargeError
from tests.support.collecting import Collecting
from tests.support.parts import Parts

NDJSON = "application/x-ndjson"


@contextmanager
def collecting(_: Services, request: JobRequest) -> Iterator[Ingest[Any]]:
    ingest = Collecting()
    ingest._cutter._strict = request.strict
    yield ingest


def sent(kind: str, *parts: bytes, query: bytes = b"") -> Request:
    """A request whose body arrives in these parts."""
    waiting = list(parts)

    async def read() -> dict[str, Any]:
        return {"type": "http.request", "body": waiting.pop(0), "more_body": bool(waiting)}

    headers = [(b"content-type", kind.encode())]
    scope = {"type": "http", "method": "POST", "path": "/v1/jobs", "query_string": query, "headers": headers}
    return Request(scope, read)


def received(services: Services, request: Request) -> list[Any]:
    chunks = asyncio.run(receive(services, request, request.stream(), collecting))
    return [text for chunk in chunks for text in chunk.texts]


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_a_stream_may_be_cut_anywhere(running: Parts, size: int) -> None:
    data = '{"text": "first"}\n{"text": "大"}\n'.encode()
    parts = [data[at : at + size] for at in range(0, len(data), size)]
    assert received(running.services, sent(NDJSON, *parts)) == ["first", "大"]


def test_a_stream_is_parsed_while_it_arrives(running: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    fed: list[bytes] = []
    monkeypatch.setattr(bodies, "_FEED_BYTES", 20)
    monkeypatch.setattr(Collecting, "feed_lines", lambda _, data: fed.append(data))
    monkeypatch.setattr(Collecting, "finish", lambda _: [])
    received(running.services, sent(NDJSON, b"x" * 15, b"y" * 15, b"z"))
    assert fed == [b"x" * 15 + b"y" * 15, b"z"]


def test_a_slow_stream_is_recorded_as_active(running: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    touches: list[int] = []
    monkeypatch.setattr(Collecting, "touch", lambda _: touches.append(1))
    received(running.services, sent(NDJSON, b'{"text":', b' "quick"', b"}\n"))
    assert touches == []
    monkeypatch.setattr(bodies, "_TOUCH_S", -1.0)
    received(running.services, sent(NDJSON, b'{"text":', b' "slow"', b"}\n"))
    assert len(touches) >= 3


def test_a_bad_line_ends_a_strict_stream_before_its_end(running: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "_FEED_BYTES", 1)
    lines = [b"oops\n", b'{"text": "a"}\n', b'{"text": "b"}\n']
    unread: list[bytes] = list(lines)
    request = sent(NDJSON, *lines, query=b"strict=true")

    async def stream() -> AsyncIterator[bytes]:
        while unread:
            yield unread.pop(0)

    with pytest.raises(BadInputError, match="line 1: not JSON"):
        asyncio.run(receive(running.services, request, stream(), collecting))
    assert unread


def test_a_bad_line_of_a_stream_keeps_its_place(running: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "_FEED_BYTES", 1)
    assert received(running.services, sent(NDJSON, b'{"text": "a"}\n', b"oops\n", b'{"text": "b"}\n')) == ["a", "", "b"]


@pytest.fixture
def narrow(running: Parts) -> Services:
    """Services that accept bodies of 100 and files of 200 bytes."""
    settings = running.services.settings.model_copy(update={"max_body_bytes": 100, "max_file_bytes": 200})
    return type(running.services)(**{**vars(running.services), "settings": settings})


def test_a_large_json_body_is_refused_while_it_arrives(narrow: Services) -> None:
    async def endless() -> AsyncIterator[bytes]:
        yield b" " * 60
        yield b" " * 60
        raise AssertionError("it reads on")

    request = sent("application/json", b"")
    with pytest.raises(BodyTooLargeError, match=r"larger than 100 bytes \(SEMEL_MAX_BODY_BYTES\); send NDJSON"):
        asyncio.run(receive(narrow, request, endless(), collecting))


def test_a_large_table_is_refused_and_a_stream_is_not(narrow: Services) -> None:
    with pytest.raises(BodyTooLargeError, match=r"larger than 200 bytes \(SEMEL_MAX_FILE_BYTES\); split it"):
        received(narrow, sent("text/csv", b"text\n", b"x\n" * 200))
    assert len(received(narrow, sent(NDJSON, *[b'{"text": "x"}\n'] * 50))) == 50
    assert list((narrow.settings.home / "files").iterdir()) == []


# The digest of a submission


def digest(kind: str, *parts: bytes, query: bytes = b"") -> bytes:
    async def read() -> bytes:
        body = HashedBody(sent(kind, *parts, query=query))
        assert b"".join([part async for part in body]) == b"".join(parts)
        return body.digest

    return asyncio.run(read())


def test_the_digest_does_not_depend_on_how_the_body_was_cut() -> None:
    assert digest(NDJSON, b"abc", b"def") == digest(NDJSON, b"a", b"bcdef")
    assert len(digest(NDJSON, b"")) == 32


def test_the_digest_covers_body_query_and_content_type() -> None:
    same = digest(NDJSON, b"abc", query=b"model=fake")
    assert same != digest(NDJSON, b"abd", query=b"model=fake")
    assert same != digest(NDJSON, b"abc", query=b"model=prompted")
    assert same != digest("text/csv", b"abc", query=b"model=fake")


def form(boundary: bytes, content: bytes = b"a,b\n1,2\n") -> list[bytes]:
    head = b"--%b\r\nContent-Disposition: form-data; name=file; filename=x.csv\r\n\r\n" % boundary
    return [head, content, b"\r\n--%b--\r\n" % boundary]


def test_a_form_that_is_repeated_with_another_boundary_has_the_same_digest() -> None:
    def of(boundary: str, content: bytes = b"a,b\n1,2\n", size: int = 10_000) -> bytes:
        body = b"".join(form(boundary.encode(), content))
        parts = [body[at : at + size] for at in range(0, len(body), size)]
        return digest(f"multipart/form-data; boundary={boundary}", *parts)

    assert of("abc123") == of("xyz9876")
    assert len({of("abc123", size=size) for size in range(1, 40)}) == 1, "wherever the body was cut"
    assert of("abc123") != of("abc123", b"a,b\n1,3\n")


# Compressed files


def test_a_compressed_file_that_holds_more_than_the_limit_is_refused(narrow: Services) -> None:
    def of(lines: int) -> Request:
        head = b'--b\r\ncontent-disposition: form-data; name="file"; filename="x.txt.gz"\r\n\r\n'
        content = gzip.compress(b"x" * 9 + b"\n" + b"y\n" * (lines - 1))
        return sent("multipart/form-data; boundary=b", head + content + b"\r\n--b--\r\n")

    assert len(received(narrow, of(96))) == 96
    with pytest.raises(BadInputError, match=r"the file: it holds more than the server takes \(SEMEL_MAX_FILE_BYTES\)"):
        received(narrow, of(97))
