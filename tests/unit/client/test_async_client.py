"""The client for event loops: the same calls and errors as those of `Client`."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import numpy as np
import pytest

from semel import AsyncClient, Client
from semel.client import calls, job_calls
from semel.client.exchange import AsyncExchange
from semel.errors import BadInputError, NotFoundError, OverloadedError, UnavailableError
from tests.support.remote import URL, Server, job
from tests.support.values import vectors


def run(server: Server, use: Callable[[AsyncClient], Awaitable[Any]]) -> Any:
    """The result of using a client whose network is a played server."""

    async def answer(request: httpx.Request) -> httpx.Response:
        await request.aread()
        return server(request)

    async def main() -> Any:
        async with AsyncClient(URL) as client:
            await client._exchange.close()
            client._exchange = AsyncExchange(URL, api_key="key", timeout_s=5, transport=httpx.MockTransport(answer))
            return await use(client)

    return asyncio.run(main())


def test_it_has_every_call_of_the_blocking_client() -> None:
    for module, names in {
        calls: ("embed", "rerank", "put_vectors", "models", "ready"),
        job_calls: ("submit", "estimate", "job", "jobs", "cancel", "retry", "delete", "wait", "results"),
    }.items():
        for name in names:
            assert getattr(AsyncClient, name).__doc__ == getattr(Client, name).__doc__ == getattr(module, name).__doc__


def test_vectors_arrive_in_order(server: Server) -> None:
    rows = vectors(3)
    data = [{"embedding": base64.b64encode(row.astype("<f4").tobytes()).decode()} for row in rows]
    server.answers(json={"data": data})
    found = run(server, lambda client: client.embed(["a", "b", "c"]))
    np.testing.assert_array_equal(found, rows)
    assert server.requests[0].headers["authorization"] == "Bearer key"


def test_a_job_is_submitted_from_any_iterable(server: Server) -> None:
    async def arriving() -> AsyncIterator[str]:
        for text in ("one", "two"):
            await asyncio.sleep(0)
            yield text

    server.answers(json=job())
    run(server, lambda client: client.submit(arriving()))
    run(server, lambda client: client.submit(text for text in ("one", "two")))
    for request in server.requests:
        assert [json.loads(line) for line in request.content.splitlines()] == [{"text": "one"}, {"text": "two"}]


def test_waiting_polls_until_the_job_has_ended(server: Server) -> None:
    server.answers(json=job(status="in_progress"))
    server.answers(json=job(status="completed"))
    assert run(server, lambda client: client.wait("job_1")).status == "completed"
    assert len(server.requests) == 2


def test_a_passing_error_is_tried_again_and_others_are_not(server: Server) -> None:
    server.refuses(429, OverloadedError.code, "busy", retry_after="0")
    server.answers(json={"data": []})
    server.refuses(404, NotFoundError.code, "there is no job")
    assert run(server, lambda client: client.models()) == []
    with pytest.raises(NotFoundError, match="there is no job"):
        run(server, lambda client: client.job("job_1"))
    assert len(server.requests) == 3


def test_a_server_that_is_not_there_is_named(server: Server) -> None:
    server.fails(httpx.ConnectError("refused"))
    with pytest.raises(UnavailableError, match=f"no semel server answers at {URL}"):
        run(server, lambda client: client.ready())


def test_a_job_of_this_client_has_no_blocking_methods(server: Server) -> None:
    server.answers(json=job())
    found = run(server, lambda client: client.job("job_1"))
    with pytest.raises(BadInputError, match=r"await client\.wait"):
        found.wait()
