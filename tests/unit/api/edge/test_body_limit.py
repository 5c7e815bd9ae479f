"""Bodies above their limit are refused before they are parsed."""

import asyncio
import gzip
import json
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.exceptions import HTTPException

from semel.api.edge.body_limit import BodyLimit
from semel.api.edge.traits import DialectRouter, RouteTable, streams_body
from tests.support.answers import dialect_of, message_of
from tests.support.service import Service, service

LIMIT = 1000


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """An API that accepts bodies of 1,000 bytes, and files of 2,000."""
    limits = {"max_body_bytes": LIMIT, "max_file_bytes": 2 * LIMIT}
    with service(tmp_path_factory.mktemp("narrow"), **limits) as running:
        yield running


BODIES = {
    "/v1/embeddings": {"input": "x" * LIMIT},
    "/v1/rerank": {"query": "q", "documents": ["x" * LIMIT]},
    "/v2/embed": {"texts": ["x" * LIMIT], "input_type": "clustering"},
    "/embed": {"inputs": "x" * LIMIT},
    "/v1/cache/prune": {"fingerprint": "x" * LIMIT},
}


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("declared", [True, False])
def test_a_large_body_is_refused_whether_or_not_it_declares_its_size(
    narrow: Service, path: str, declared: bool
) -> None:
    content = json.dumps(BODIES[path]).encode()
    sent: Any = content if declared else iter([content])
    answer = narrow.http.post(path, content=sent, headers={"content-type": "application/json"})
    assert ("content-length" in answer.request.headers) is declared
    assert answer.status_code == 413
    assert f"larger than {LIMIT} bytes (SEMEL_MAX_BODY_BYTES)" in message_of(answer)


@pytest.mark.parametrize(("path", "dialect"), [("/v1/embeddings", "openai"), ("/v2/rerank", "cohere"), ("/", "tei")])
@pytest.mark.parametrize("declared", [True, False])
def test_the_refusal_has_the_shape_of_the_dialect(narrow: Service, path: str, dialect: str, declared: bool) -> None:
    content = b'{"model": "' + b"x" * LIMIT + b'"}'
    sent: Any = content if declared else iter([content])
    answer = narrow.http.post(path, content=sent, headers={"content-type": "application/json"})
    assert (answer.status_code, dialect_of(answer)) == (413, dialect)
    assert answer.headers["x-request-id"]


@pytest.mark.parametrize("encoding", ["gzip", "zstd", "br", "nonsense"])
@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/jobs", "/v2/embed", "/embed", "/api/embed"])
def test_a_compressed_body_is_refused_with_what_to_do(narrow: Service, path: str, encoding: str) -> None:
    headers = {"content-type": "application/json", "content-encoding": encoding}
    answer = narrow.http.post(path, content=gzip.compress(b"{}"), headers=headers)
    assert answer.status_code == 415
    assert f"the Content-Encoding '{encoding}': send it as it is" in message_of(answer)


def test_a_body_of_exactly_the_limit_passes(narrow: Service) -> None:
    for missing, status in ((0, 200), (-1, 413)):
        head = b'{"input": "'
        content = head + b"x" * (LIMIT - len(head) - 2 - missing) + b'"}'
        assert len(content) == LIMIT - missing
        answer = narrow.http.post("/v1/embeddings", content=content, headers={"content-type": "application/json"})
        assert answer.status_code == status


def test_ndjson_has_no_limit(narrow: Service) -> None:
    lines = b"".join(b'{"text": "a line of a long job %d"}\n' % i for i in range(200))
    assert len(lines) > 5 * LIMIT
    answer = narrow.http.post("/v1/jobs", content=lines, headers={"content-type": "application/x-ndjson"})
    assert answer.status_code == 202


@pytest.mark.parametrize(
    ("path", "method", "sent"),
    [
        ("/v1/jobs", "POST", {"headers": {"content-type": "text/csv"}, "content": b"text\n" + b"x\n" * LIMIT * 2}),
        ("/v1/files", "POST", {"data": {"purpose": "batch"}, "files": {"file": b"x" * 100_000}}),
        (
            "/v1/cache/vectors?model=fake",
            "PUT",
            {"headers": {"content-type": "application/x-ndjson"}, "content": b"x" * 3 * LIMIT},
        ),
    ],
)
def test_a_file_has_a_limit_of_its_own(narrow: Service, path: str, method: str, sent: dict[str, Any]) -> None:
    answer = narrow.http.request(method, path, **sent)
    assert answer.status_code == 413
    assert "SEMEL_MAX_FILE_BYTES" in message_of(answer)


# The middleware alone: a body in parts

router = DialectRouter(needs=None, dialect="tei")


@router.post("/parsed")
def parsed() -> None:
    """A route whose body is parsed whole."""


@router.post("/streamed")
@streams_body
def streamed() -> None:
    """A route that reads its own body."""


def sent_to(path: str, parts: Sequence[bytes], **headers: str) -> tuple[list[int], bytes]:
    """The status codes of an app behind a limit of 10 bytes, and what it read of the body."""
    statuses: list[int] = []
    read = bytearray()
    messages = [{"type": "http.request", "body": part, "more_body": True} for part in parts]

    async def reads_all(scope: Any, receive: Any, send: Any) -> None:
        for _ in parts:
            read.extend((await receive())["body"])
        await send({"type": "http.response.start", "status": 200})

    async def receive() -> Any:
        return messages.pop(0)

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    limited = BodyLimit(reads_all, routes=RouteTable([router]), max_bytes=10)
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": "POST", "path": path, "headers": raw, "app": FastAPI()}
    asyncio.run(limited(scope, receive, send))
    return statuses, bytes(read)


def test_parts_up_to_the_limit_arrive_unchanged() -> None:
    assert sent_to("/parsed", [b"12345", b"67890", b""]) == ([200], b"1234567890")


def test_the_part_that_crosses_the_limit_ends_the_reading() -> None:
    with pytest.raises(HTTPException) as caught:
        sent_to("/parsed", [b"12345", b"67890", b"1", b"never read"])
    assert caught.value.status_code == 413


def test_a_body_that_lies_about_its_size_is_refused_while_it_arrives() -> None:
    with pytest.raises(HTTPException):
        sent_to("/parsed", [b"x" * 11], content_length="3")


def test_a_declared_size_above_the_limit_is_answered_without_reading() -> None:
    assert sent_to("/parsed", [b"x" * 11], content_length="11") == ([413], b"")


def test_a_route_that_streams_reads_everything() -> None:
    assert sent_to("/streamed", [b"x" * 50, b"y" * 50], content_length="100") == ([200], b"x" * 50 + b"y" * 50)


def test_what_is_no_http_request_passes() -> None:
    seen: list[str] = []

    async def notes(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])

    asyncio.run(BodyLimit(notes, routes=RouteTable([]), max_bytes=1)({"type": "lifespan"}, None, None))
    assert seen == ["lifespan"]
