"""The HTTP client: `from semel import Client`. It needs only numpy and httpx.

client = Client("http://127.0.0.1:8700")
vectors = client.embed(["one", "two"])                 # float32 (2, dim)
job = client.submit(lines)                              # any iterable, sent as a stream
vectors = job.wait().results()
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar, Unpack, cast

from httpx_sse import EventSource

from semel.client import calls, job_calls
from semel.client.address import address_of
from semel.client.batches import BatchCalls
from semel.client.exchange import Exchange
from semel.client.job_calls import id_of
from semel.client.progress import of_job, progress_bar
from semel.client.records import JobEvent, RemoteJob, job_of
from semel.client.steps import Call
from semel.client.tables import read_table
from semel.values.job import JobOptions
from semel.values.vectors import Vectors

P = ParamSpec("P")
T = TypeVar("T")


def _blocking(make: Callable[P, Call[T]]) -> "Callable[Concatenate[Client, P], T]":
    """A method that takes the steps of a call, and waits for them."""

    @wraps(make)
    def method(self: "Client", /, *args: P.args, **named: P.kwargs) -> T:
        result: T = self._bound(self._exchange.run(make(*args, **named)))
        return result

    return cast("Callable[Concatenate[Client, P], T]", method)


def _client(url: str, api_key: str, timeout_s: float) -> "Client":
    return Client(url, api_key=api_key, timeout_s=timeout_s)


class Client(BatchCalls):
    """A connection to a semel server. Thread-safe.

    Every method raises UnauthorizedError or ForbiddenError for a missing or insufficient API key, OverloadedError if
    too much work waits, and UnavailableError if the server, or a service behind it, does not answer. The methods that
    `AsyncClient` has, too, are described in `semel.client.calls` and `job_calls`.

    Args:
        url: the server's address; by default `SEMEL_URL`, otherwise the address of `semel up`.
        api_key: by default `SEMEL_API_KEY`; a server on a loopback address may need none.
        timeout_s: for one answer. Uploads and downloads may take longer as long as data moves.
    """

    embed = _blocking(calls.embed)
    embed_sparse = _blocking(calls.embed_sparse)
    rerank = _blocking(calls.rerank)
    classify = _blocking(calls.classify)
    submit = _blocking(job_calls.submit)
    estimate = _blocking(job_calls.estimate)
    put_vectors = _blocking(calls.put_vectors)
    job = _blocking(job_calls.job)
    jobs = _blocking(job_calls.jobs)
    cancel = _blocking(job_calls.cancel)
    retry = _blocking(job_calls.retry)
    delete = _blocking(job_calls.delete)
    wait = _blocking(job_calls.wait)
    results = _blocking(job_calls.results)
    models = _blocking(calls.models)
    keys = _blocking(calls.keys)
    ready = _blocking(calls.ready)

    def __init__(self, url: str | None = None, *, api_key: str | None = None, timeout_s: float = 150.0) -> None:
        self.url, self._api_key = address_of(url, api_key)
        self._timeout_s = timeout_s
        super().__init__(Exchange(self.url, api_key=self._api_key, timeout_s=timeout_s))

    def __repr__(self) -> str:
        return f"Client({self.url!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy, or a client that another process receives, has connections of its own."""
        return _client, (self.url, self._api_key, self._timeout_s)

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; leaving the `with` block of a client does the same."""
        self._exchange.close()

    def events(self, job: str | RemoteJob) -> Iterator[JobEvent]:
        """The job and its rate after each change, until it has ended. Raises NotFoundError."""
        with self._exchange.stream("GET", f"/v1/jobs/{id_of(job)}/events") as response:
            for event in EventSource(response).iter_sse():
                data = event.json()
                yield JobEvent(self._bound(job_of(data["job"])), data["texts_per_s"], data["eta_s"])

    @contextmanager
    def results_stream(
        self, job: str | RemoteJob, *, fmt: str, offset: int = 0, limit: int | None = None
    ) -> Iterator[Iterator[bytes]]:
        """The bytes of the results as they arrive.

        Args:
            fmt: `ndjson`, `npy`, `arrow` or `parquet`.
            offset: position of the first text, to continue a download that was cut off.
            limit: number of texts; None for all that follow.

        Raises:
            NotFoundError: there is no such job.
            ConflictError: the job is not completed, or the format cannot show that some texts failed.
        """
        params: dict[str, str | int] = {"format": fmt, "offset": offset, **({} if limit is None else {"limit": limit})}
        with self._exchange.stream("GET", f"/v1/jobs/{id_of(job)}/results", params=params) as response:
            yield response.iter_bytes()

    def to_arrow(self, job: str | RemoteJob) -> Any:
        """The results of a completed job as a table of pyarrow; needs pyarrow.

        Its columns: `index`, `id`, the other fields of the rows, those of the model, `outcome`, `truncated` and
        `error`. A model's columns are `embedding`; `score` of a cross-encoder; `label` and `scores` of a classifier; or
        `sparse_embedding`. They are null for a failed text.

        Raises:
            NotFoundError: there is no such job.
            ConflictError: the job is not completed.
        """
        with self.results_stream(job, fmt="arrow") as parts:
            return read_table(parts)

    def to_pandas(self, job: str | RemoteJob) -> Any:
        """The results of a completed job as a DataFrame of pandas; as `to_arrow`."""
        return self.to_arrow(job).to_pandas()

    def embed_corpus(self, texts: Any, *, show_progress: bool = True, **options: Unpack[JobOptions]) -> Vectors:
        """Vectors for any number of texts, computed by a job; float32 (n, dim), in order.

        Args:
            texts: as for `submit`.
            show_progress: show a bar on stderr, or a line in a notebook, with hits and time left.
            options: see `semel.values.job.JobOptions`.

        Raises:
            BadInputError: the server refuses an option or a text; the message names it and the reason.
            ConflictError: some texts failed, or the job was cancelled; the message gives the number or the reason.
        """
        with progress_bar(visible=show_progress) as show:
            job = self.submit(texts, **options).wait(on_progress=of_job(show))
        return self.results(job)

    def _bound(self, result: Any) -> Any:
        """The result of a call; its jobs know this client."""
        if isinstance(result, RemoteJob):
            return result.bound(self)
        return [self._bound(each) for each in result] if isinstance(result, list) else result
