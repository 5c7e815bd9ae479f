"""The events of a job, as a stream."""

import json
from collections.abc import Iterable
from typing import Any

import pytest

from semel.client import Client, JobEvent
from semel.errors import NotFoundError
from tests.support.remote import Server, job


def events(*blocks: str) -> Iterable[bytes]:
    return (block.encode() for block in blocks)


def stream(server: Server, blocks: Iterable[bytes]) -> None:
    server.answers(content=iter(blocks), headers={"content-type": "text/event-stream; charset=utf-8"})


def progress(**changed: Any) -> str:
    return json.dumps({"job": job(**changed), "texts_per_s": 12.5, "eta_s": None}, ensure_ascii=False)


def test_each_event_is_the_job_with_its_rate(client: Client, server: Server) -> None:
    first, last = progress(status="in_progress"), progress(status="completed")
    stream(server, events(f"event: progress\ndata: {first}\n\n", ": still here\n\n", f"event: end\ndata: {last}\n\n"))
    seen = list(client.events("job_1"))
    assert [event.job.status.value for event in seen] == ["in_progress", "completed"]
    assert isinstance(seen[0], JobEvent)
    assert (seen[0].texts_per_s, seen[0].eta_s) == (12.5, None)


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85"])
def test_a_line_end_of_unicode_does_not_cut_an_event_in_two(client: Client, server: Server, separator: str) -> None:
    """JSON may contain them unescaped, and `str.splitlines` would end a line at each."""
    data = progress(metadata={"note": f"before{separator}after"})
    assert separator in data
    stream(server, events(f"data: {data}\n\n"))
    (event,) = client.events("job_1")
    assert event.job.metadata == {"note": f"before{separator}after"}


def test_an_event_may_arrive_in_pieces(client: Client, server: Server) -> None:
    whole = f"event: progress\ndata: {progress(metadata={'note': 'ä'})}\n\n".encode()
    stream(server, (whole[at : at + 1] for at in range(len(whole))))
    (event,) = client.events("job_1")
    assert event.job.metadata == {"note": "ä"}


def test_events_of_an_unknown_job_are_an_error(client: Client, server: Server) -> None:
    server.refuses(404, "not_found", "there is no job 'job_1'")
    with pytest.raises(NotFoundError):
        next(client.events("job_1"))
