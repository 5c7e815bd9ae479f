"""The vectors of a job: whole, or an error."""

import io

import numpy as np
import pytest

from semel.client import Client
from semel.errors import UnavailableError
from semel.values.vectors import Vectors
from tests.support.remote import Server, job
from tests.support.values import vectors


def npy(rows: Vectors) -> bytes:
    file = io.BytesIO()
    np.save(file, rows)
    return file.getvalue()


def test_results_are_the_rows_of_the_file(client: Client, server: Server) -> None:
    rows = vectors(3)
    server.answers(json=job())
    server.answers(content=iter([npy(rows)[:50], npy(rows)[50:]]))
    np.testing.assert_array_equal(client.results("job_1"), rows)
    assert dict(server.requests[1].url.params) == {"format": "npy"}


def test_results_of_no_texts_are_no_rows(client: Client, server: Server) -> None:
    server.answers(json=job(total=0))
    server.answers(content=npy(np.zeros((0, 4), np.float32)))
    assert client.results("job_1").shape == (0, 4)


@pytest.mark.parametrize("missing", [1, 16, 40])
def test_results_that_end_early_are_never_taken_for_whole(client: Client, server: Server, missing: int) -> None:
    whole = npy(vectors(3))
    server.answers(json=job())
    server.answers(content=whole[:-missing])
    message = f"the results of job_1 ended after {len(whole) - missing} of {len(whole)} bytes; try again"
    with pytest.raises(UnavailableError, match=message):
        client.results("job_1")


def test_a_part_of_the_results_is_asked_for_by_position(client: Client, server: Server) -> None:
    server.answers(content=iter([b"one\n", b"two\n"]))
    with client.results_stream("job_1", fmt="ndjson", offset=10, limit=2) as parts:
        assert list(parts) == [b"one\n", b"two\n"]
    assert dict(server.requests[0].url.params) == {"format": "ndjson", "offset": "10", "limit": "2"}


def test_a_corpus_is_submitted_awaited_and_fetched(
    client: Client, server: Server, pauses: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    rows = vectors(3)
    for answer in (job("validating"), job("in_progress"), job("completed"), job("completed")):
        server.answers(json=answer)
    server.answers(content=npy(rows))
    np.testing.assert_array_equal(client.embed_corpus(["a", "b", "c"], show_progress=False, model="fake"), rows)
    assert [request.method for request in server.requests] == ["POST", "GET", "GET", "GET", "GET"]
    assert capsys.readouterr().err == ""
