"""Files and batches: uploads, waiting, and downloads that are whole or not there."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from semel.client import Client
from semel.errors import ConflictError, NotFoundError, TimedOutError, UnavailableError
from semel.values.job import JobStatus
from tests.support.remote import Server


def batch(status: str = "completed", **changed: Any) -> dict[str, Any]:
    """A batch as the server sends it."""
    return {
        "id": "batch_1", "object": "batch", "status": status, "input_file_id": "file_in", "output_file_id": "file_out",
        "error_file_id": None, "errors": None, "request_counts": {"total": 3, "completed": 2, "failed": 1}, **changed,
    }  # fmt: skip


def test_a_file_is_uploaded_as_a_form_with_its_name(client: Client, server: Server, tmp_path: Path) -> None:
    (tmp_path / "requests.jsonl").write_bytes(b'{"custom_id": "a"}\n')
    server.answers(json={"id": "file_in"})
    assert client.upload(tmp_path / "requests.jsonl") == "file_in"
    (request,) = server.requests
    assert request.headers["content-type"].startswith("multipart/form-data")
    assert b'name="purpose"\r\n\r\nbatch\r\n' in request.content
    assert b'filename="requests.jsonl"' in request.content
    assert b'{"custom_id": "a"}\n' in request.content


def test_a_missing_file_is_not_sent(client: Client, server: Server, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        client.upload(tmp_path / "nowhere.jsonl")
    assert server.requests == []


def test_a_batch_runs_the_requests_of_a_file(client: Client, server: Server) -> None:
    server.answers(json=batch("validating"))
    submitted = client.submit_batch("file_in", endpoint="/v1/rerank", metadata={"a": "b"})
    assert (submitted.id, submitted.status) == ("batch_1", JobStatus.VALIDATING)
    assert json.loads(server.requests[0].content) == {
        "input_file_id": "file_in", "endpoint": "/v1/rerank", "metadata": {"a": "b"},
    }  # fmt: skip


def test_a_batch_has_its_counts_its_files_and_its_errors(client: Client, server: Server) -> None:
    errors = {"object": "list", "data": [{"code": "x", "message": "line 3: not JSON", "line": 3}]}
    server.answers(json=batch("failed", errors=errors))
    failed = client.batch("batch_1")
    assert (failed.total, failed.completed, failed.failed) == (3, 2, 1)
    assert (failed.input_file_id, failed.output_file_id, failed.error_file_id) == ("file_in", "file_out", None)
    assert failed.errors == ["line 3: not JSON"]


def test_waiting_polls_until_the_batch_has_ended(client: Client, server: Server, pauses: list[float]) -> None:
    for status in ("validating", "in_progress", "completed"):
        server.answers(json=batch(status))
    assert client.wait_batch("batch_1").status is JobStatus.COMPLETED
    assert pauses == [0.25, 0.25]


def test_waiting_for_a_batch_ends_at_the_timeout(client: Client, server: Server, pauses: list[float]) -> None:
    server.answers(json=batch("in_progress"))
    with pytest.raises(TimedOutError, match="batch batch_1 is still in_progress after 0 s and continues"):
        client.wait_batch("batch_1", timeout_s=0)


def test_a_batch_that_has_ended_cannot_be_cancelled(client: Client, server: Server) -> None:
    server.refuses(409, "conflict", "batch batch_1 has ended")
    with pytest.raises(ConflictError, match="has ended"):
        client.cancel_batch("batch_1")
    assert server.requests[0].url.path == "/v1/batches/batch_1/cancel"


def test_a_file_is_deleted(client: Client, server: Server) -> None:
    server.answers(json={"id": "file_in", "deleted": True})
    client.delete_file("file_in")
    assert (server.requests[0].method, server.requests[0].url.path) == ("DELETE", "/v1/files/file_in")


# Downloads


def test_a_download_is_written_to_its_path(client: Client, server: Server, tmp_path: Path) -> None:
    server.answers(content=iter([b"one\n", b"two\n"]))
    client.download("file_out", tmp_path / "out.jsonl")
    assert (tmp_path / "out.jsonl").read_bytes() == b"one\ntwo\n"
    assert list(tmp_path.iterdir()) == [tmp_path / "out.jsonl"]


def test_a_download_that_breaks_leaves_the_old_file_and_no_part(client: Client, server: Server, tmp_path: Path) -> None:
    def broken() -> Iterator[bytes]:
        yield b"x" * (2 << 20)
        raise httpx.ReadError("connection reset")

    (tmp_path / "out.jsonl").write_bytes(b"old")
    server.answers(content=broken())
    with pytest.raises(UnavailableError, match="connection reset"):
        client.download("file_out", tmp_path / "out.jsonl")
    assert (tmp_path / "out.jsonl").read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [tmp_path / "out.jsonl"]


def test_a_download_that_is_shorter_than_announced_is_an_error(client: Client, server: Server, tmp_path: Path) -> None:
    def short() -> Iterator[bytes]:
        yield b"half"
        raise httpx.RemoteProtocolError("peer closed connection without sending complete message body")

    server.answers(content=short(), headers={"content-length": "8"})
    with pytest.raises(UnavailableError, match="complete message body"):
        client.download("file_out", tmp_path / "out.jsonl")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_the_server_does_not_have_writes_nothing(client: Client, server: Server, tmp_path: Path) -> None:
    server.refuses(404, "not_found", "there is no file 'file_out'")
    with pytest.raises(NotFoundError, match="there is no file 'file_out'"):
        client.download("file_out", tmp_path / "out.jsonl")
    assert list(tmp_path.iterdir()) == []


def test_a_path_that_cannot_be_written_is_an_error_of_the_system(
    client: Client, server: Server, tmp_path: Path
) -> None:
    server.answers(content=b"x")
    with pytest.raises(FileNotFoundError):
        client.download("file_out", tmp_path / "nowhere" / "out.jsonl")
