"""The HTTP client for event loops: `from semel import AsyncClient`.

async with AsyncClient("http://127.0.0.1:8700") as client:
    vectors = await client.embed(["one", "two"])
    job = await client.wait(await client.submit(lines))
    vectors = await client.results(job)
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

from semel.client import calls, job_calls
from semel.client.address import address_of
from semel.client.exchange import AsyncExchange
from semel.client.job_calls import id_of
from semel.client.records import RemoteJob
from semel.client.steps import Call
from semel.client.tables import read_table

P = ParamSpec("P")
T = TypeVar("T")


def _awaiting(make: Callable[P, Call[T]]) -> "Callable[Concatenate[AsyncClient, P], Awaitable[T]]":
    """A method that takes the steps of a call on the event loop."""

    @wraps(make)
    async def method(self: "AsyncClient", /, *args: P.args, **named: P.kwargs) -> T:
        return await self._exchange.run(make(*args, **named))

    return cast("Callable[Concatenate[AsyncClient, P], Awaitable[T]]", method)


class AsyncClient:
    """A connection to a semel server, for one event loop. Its methods and their errors are those of `Client`.

    They are described in `semel.client.calls` and `job_calls`. `submit` takes asynchronous iterables, too.

    Args:
        url, api_key, timeout_s: as of `Client`.
    """

    embed = _awaiting(calls.embed)
    embed_sparse = _awaiting(calls.embed_sparse)
    rerank = _awaiting(calls.rerank)
    classify = _awaiting(calls.classify)
    submit = _awaiting(job_calls.submit)
    estimate = _awaiting(job_calls.estimate)
    put_vectors = _awaiting(calls.put_vectors)
    job = _awaiting(job_calls.job)
    jobs = _awaiting(job_calls.jobs)
    cancel = _awaiting(job_calls.cancel)
    retry = _awaiting(job_calls.retry)
    delete = _awaiting(job_calls.delete)
    wait = _awaiting(job_calls.wait)
    results = _awaiting(job_calls.results)
    models = _awaiting(calls.models)
    keys = _awaiting(calls.keys)
    ready = _awaiting(calls.ready)

    def __init__(self, url: str | None = None, *, api_key: str | None = None, timeout_s: float = 150.0) -> None:
        self.url, key = address_of(url, api_key)
        self._exchange = AsyncExchange(self.url, api_key=key, timeout_s=timeout_s)

    def __repr__(self) -> str:
        return f"AsyncClient({self.url!r})"

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections; leaving the `async with` block of a client does the same."""
        await self._exchange.close()

    @asynccontextmanager
    async def results_stream(
        self, job: str | RemoteJob, *, fmt: str, offset: int = 0, limit: int | None = None
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """The bytes of the results as they arrive; as `Client.results_stream`."""
        params: dict[str, str | int] = {"format": fmt, "offset": offset, **({} if limit is None else {"limit": limit})}
        async with self._exchange.stream("GET", f"/v1/jobs/{id_of(job)}/results", params=params) as response:
            yield response.aiter_bytes()

    async def to_arrow(self, job: str | RemoteJob) -> Any:
        """The results of a completed job as a table of pyarrow; as `Client.to_arrow`."""
        async with self.results_stream(job, fmt="arrow") as parts:
            return read_table([part async for part in parts])
