"""The HTTP client: `from semel import Client`. Needs numpy and httpx, nothing else of semel.

client = Client("http://127.0.0.1:8700")
vectors = client.embed(["one", "two"])                 # float32 (2, dim)
job = client.submit(lines)                              # any iterable, streamed
vectors = client.results(client.wait(job.id).id)
"""

import base64
import json
import os
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from semel.errors import (
    BadInputError,
    ConflictError,
    ForbiddenError,
    NotFoundError,
    SemelError,
    TimedOutError,
    UnauthorizedError,
    UnavailableError,
    remade,
)
from semel.values import Counts, IfNoWorker, ItemError, JobStatus, Vectors

DEFAULT_URL = "http://127.0.0.1:8700"

_RETRIES = 2
_RETRY_STATUS = {429, 502, 503, 504}
_LONGEST_PAUSE_S = 30.0
_UPLOAD_BYTES = 256 << 10

_ERRORS: dict[int, type[SemelError]] = {
    401: UnauthorizedError,
    403: ForbiddenError,
    404: NotFoundError,
    409: ConflictError,
    503: UnavailableError,
    504: TimedOutError,
}


@dataclass(frozen=True)
class RemoteJob:
    """A job as the server tells it; times are Unix seconds."""

    id: str
    status: JobStatus
    model: str
    dimensions: int
    device: str
    why: str
    total: int
    counts: Counts
    error: ItemError | None
    metadata: dict[str, str]
    created_at: float
    completed_at: float | None


@dataclass(frozen=True)
class RemoteBatch:
    """A batch as the server tells it; `completed` and `failed` count its lines."""

    id: str
    status: JobStatus
    input_file_id: str
    output_file_id: str | None
    error_file_id: str | None
    total: int
    completed: int
    failed: int
    errors: list[str]


@dataclass(frozen=True)
class JobEvent:
    """How far a job is: texts/s since the stream of events began, and the seconds left (None when unknown)."""

    job: RemoteJob
    texts_per_s: float
    eta_s: float | None


@dataclass(frozen=True)
class RemoteModel:
    """A model as the server tells it."""

    id: str
    dimensions: int
    max_tokens: int
    prompts: list[str]
    fingerprint: str
    live: bool


@dataclass(frozen=True)
class Relevance:
    """A document's place in the list that was sent, and its score; higher is more relevant."""

    index: int
    score: float


def _ignore(_: object) -> None:
    """A caller who wants no progress."""


class Client:
    """A semel server.

    Args:
        url: its address; default `SEMEL_URL`, else the one of `semel up`.
        api_key: default `SEMEL_API_KEY`; a server on a loopback address may need none.
        timeout_s: for one answer. Uploads and downloads may take as long as they move.
    """

    def __init__(self, url: str | None = None, *, api_key: str | None = None, timeout_s: float = 150.0) -> None:
        self.url = (url or os.environ.get("SEMEL_URL") or DEFAULT_URL).rstrip("/")
        key = api_key or os.environ.get("SEMEL_API_KEY")
        headers = {"authorization": f"Bearer {key}"} if key else {}
        self._http = httpx.Client(base_url=self.url, headers=headers, timeout=httpx.Timeout(timeout_s, connect=5.0))

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def embed(
        self,
        texts: Sequence[str],
        *,
        model: str | None = None,
        dimensions: int | None = None,
        input_type: str | None = None,
        prompt_name: str = "",
        truncate: bool = True,
    ) -> Vectors:
        """Vectors for a few texts, float32 (len(texts), dim), in order.

        Args:
            model: a name from the server's list; None for its default.
            dimensions: cut to this size, for models that were trained for it.
            input_type: `query` or `document`: takes the model's prompt for such texts, when it has one.
            prompt_name: a prompt by its name, instead.
            truncate: False refuses texts above the model's limit.

        Raises:
            BadInputError: the server refuses the input; says which text and why.
            UnavailableError: the server, or a part of it, does not answer.
        """
        body = {
            "input": list(texts),
            "model": model,
            "encoding_format": "base64",
            "prompt_name": prompt_name,
            "truncate": truncate,
            **({"dimensions": dimensions} if dimensions else {}),
            **({"input_type": input_type} if input_type else {}),
        }
        data = self._json("POST", "/v1/embeddings", json=body)["data"]
        return np.stack([np.frombuffer(base64.b64decode(item["embedding"]), "<f4") for item in data])

    def rerank(
        self, query: str, documents: Sequence[str], *, model: str | None = None, top_n: int | None = None
    ) -> list[Relevance]:
        """Documents by their relevance to the query, the best first.

        Args:
            model: a cross-encoder or an embedding model; None for the server's default.
            top_n: how many to return; None for all.

        Raises:
            BadInputError: the server refuses the input; says which document and why.
        """
        body = {
            "query": query,
            "documents": list(documents),
            "model": model,
            **({} if top_n is None else {"top_n": top_n}),
        }
        results = self._json("POST", "/v1/rerank", json=body)["results"]
        return [Relevance(item["index"], item["relevance_score"]) for item in results]

    def submit(
        self,
        texts: Iterable[str | Mapping[str, Any]],
        *,
        model: str | None = None,
        device: str = "auto",
        input_type: str | None = None,
        prompt_name: str = "",
        truncate: bool = True,
        if_no_worker: IfNoWorker = "wait",
        text_field: str = "text",
        metadata: dict[str, str] | None = None,
        idempotency_key: str | None = None,
        on_sent: Callable[[int], None] = _ignore,
    ) -> RemoteJob:
        """Send texts as a job, streamed: memory stays flat for any iterable.

        Args:
            texts: texts, or rows: `{"text": …}`, for a cross-encoder `{"query": …, "document": …}`. The `id` and every
                other field of a row come back with its result.
            model: None for the server's default.
            input_type, prompt_name: as for `embed`.
            if_no_worker: when every worker of the job's vector space is gone: `wait` for one, or `fail`.
            text_field: which field of a row is the text.
            idempotency_key: sent again with the same texts within a day, it gives the same job.
            on_sent: called now and then with the number of texts sent so far.
        """
        params: dict[str, str | bool] = {
            "device": device,
            "prompt_name": prompt_name,
            "truncate": truncate,
            "if_no_worker": if_no_worker,
            "text_field": text_field,
            "metadata": json.dumps(metadata or {}),
            **({"model": model} if model else {}),
            **({"input_type": input_type} if input_type else {}),
        }
        with self._translated():
            response = self._http.post(
                "/v1/jobs",
                params=params,
                content=_lines(texts, on_sent, text_field),
                headers={
                    "content-type": "application/x-ndjson",
                    **({"idempotency-key": idempotency_key} if idempotency_key else {}),
                },
            )
        return _job(_checked(response))

    def put_vectors(
        self, rows: Iterable[tuple[str, Sequence[float]]], *, model: str, prompt_name: str = ""
    ) -> tuple[int, int]:
        """Give the cache vectors that this very model made elsewhere, streamed; some are computed again and compared.

        Args:
            rows: texts with their vectors.

        Returns: how many were stored, and how many the cache had already.

        Raises:
            BadInputError: a vector is not one of this model; says which. Those before it may have been stored.
        """
        lines = ({"text": text, "embedding": np.asarray(vector, np.float32).tolist()} for text, vector in rows)
        with self._translated():
            response = self._http.put(
                "/v1/cache/vectors",
                params={"model": model, "prompt_name": prompt_name},
                content=_lines(lines, _ignore),
                headers={"content-type": "application/x-ndjson"},
            )
        answer = _checked(response)
        return answer["stored"], answer["present"]

    def job(self, job_id: str) -> RemoteJob:
        """Raises NotFoundError."""
        return _job(self._json("GET", f"/v1/jobs/{job_id}"))

    def jobs(
        self, *, limit: int = 20, after: str | None = None, status: str | None = None, model: str | None = None
    ) -> list[RemoteJob]:
        """The newest first; `after` is the id of the last job of the page before."""
        wanted = {"limit": limit, "after": after, "status": status, "model": model}
        params = {name: value for name, value in wanted.items() if value is not None}
        return [_job(item) for item in self._json("GET", "/v1/jobs", params=params)["data"]]

    def cancel(self, job_id: str) -> RemoteJob:
        """Raises NotFoundError, ConflictError when it has ended."""
        return _job(self._json("POST", f"/v1/jobs/{job_id}/cancel"))

    def retry(self, job_id: str) -> RemoteJob:
        """Run again what failed in a job that has ended. Raises NotFoundError, ConflictError when it has not."""
        return _job(self._json("POST", f"/v1/jobs/{job_id}/retry"))

    def delete(self, job_id: str) -> None:
        """Forget a job that has ended. Raises NotFoundError, ConflictError when it has not."""
        with self._translated():
            _check(self._http.delete(f"/v1/jobs/{job_id}"))

    def events(self, job_id: str) -> Iterator[JobEvent]:
        """The job whenever something changed, with its rate, until it has ended. Raises NotFoundError."""
        with self._translated(), self._http.stream("GET", f"/v1/jobs/{job_id}/events") as response:
            if response.is_error:
                response.read()
            _check(response)
            for line in response.iter_lines():
                if line.startswith("data: "):
                    data = json.loads(line.removeprefix("data: "))
                    yield JobEvent(_job(data["job"]), data["texts_per_s"], data["eta_s"])

    def wait(
        self,
        job_id: str,
        *,
        timeout_s: float | None = None,
        on_progress: Callable[[RemoteJob], None] = _ignore,
    ) -> RemoteJob:
        """Poll until the job ends, whatever way; look at `status`.

        Raises:
            TimedOutError: it goes on after `timeout_s`.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        pause_s = 0.02
        while True:
            job = self.job(job_id)
            on_progress(job)
            if job.status.ended:
                return job
            if deadline is not None and time.monotonic() > deadline:
                raise TimedOutError(f"job {job_id} is still {job.status} after {timeout_s:g} s; it goes on")
            time.sleep(pause_s)
            pause_s = min(pause_s * 1.5, 0.5)

    def results(self, job_id: str) -> Vectors:
        """All vectors of a completed job, float32 (total, dim), in the order of its texts.

        Raises:
            ConflictError: not completed, or some texts failed (`results_stream` tells which).
        """
        job = self.job(job_id)
        data = bytearray()
        with self.results_stream(job_id, fmt="npy") as parts:
            for part in parts:
                data += part
        header_bytes = 10 + int.from_bytes(data[8:10], "little")  # magic, version, length; numpy.lib.format
        expected = header_bytes + job.total * job.dimensions * 4
        if len(data) != expected:
            raise UnavailableError(f"the results of {job_id} ended after {len(data)} of {expected} bytes; fetch again")
        return np.frombuffer(data, "<f4", offset=header_bytes).reshape(job.total, job.dimensions)

    @contextmanager
    def results_stream(
        self, job_id: str, *, fmt: str, offset: int = 0, limit: int | None = None
    ) -> Iterator[Iterator[bytes]]:
        """The bytes of the results in `ndjson`, `npy`, `arrow` or `parquet`, as they arrive.

        Args:
            offset, limit: of the texts; a download that was cut off goes on where it was.
        """
        params: dict[str, str | int] = {"format": fmt, "offset": offset, **({} if limit is None else {"limit": limit})}
        with self._translated(), self._http.stream("GET", f"/v1/jobs/{job_id}/results", params=params) as r:
            if r.is_error:
                r.read()
            _check(r)
            yield r.iter_bytes()

    def upload(self, path: Path) -> str:
        """Upload a file of batch requests, streamed; returns its id. Raises BadInputError."""
        with self._translated(), path.open("rb") as file:
            data = {"purpose": "batch"}
            return str(_checked(self._http.post("/v1/files", data=data, files={"file": (path.name, file)}))["id"])

    def submit_batch(
        self, file_id: str, *, endpoint: str = "/v1/embeddings", metadata: dict[str, str] | None = None
    ) -> RemoteBatch:
        """Run every request of an uploaded file. Raises BadInputError, NotFoundError."""
        wanted = {"input_file_id": file_id, "endpoint": endpoint, "metadata": metadata}
        return _batch(self._json("POST", "/v1/batches", json=wanted))

    def batch(self, batch_id: str) -> RemoteBatch:
        """Raises NotFoundError."""
        return _batch(self._json("GET", f"/v1/batches/{batch_id}"))

    def cancel_batch(self, batch_id: str) -> RemoteBatch:
        """Stop it; what is done goes into its output file. Raises NotFoundError, ConflictError when it has ended."""
        return _batch(self._json("POST", f"/v1/batches/{batch_id}/cancel"))

    def wait_batch(self, batch_id: str, *, timeout_s: float | None = None) -> RemoteBatch:
        """Poll until the batch ends, whatever way; look at `status`. Raises TimedOutError."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while not (batch := self.batch(batch_id)).status.ended:
            if deadline is not None and time.monotonic() > deadline:
                raise TimedOutError(f"batch {batch_id} is still {batch.status} after {timeout_s:g} s; it goes on")
            time.sleep(0.25)
        return batch

    def download(self, file_id: str, path: Path) -> None:
        """Write the content of a file, streamed; a file that is there is replaced when all has arrived."""
        part = path.with_name(path.name + ".part")
        try:
            with self._translated(), self._http.stream("GET", f"/v1/files/{file_id}/content") as response:
                if response.is_error:
                    response.read()
                _check(response)
                with part.open("wb") as file:
                    for block in response.iter_bytes(1 << 20):
                        file.write(block)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)

    def delete_file(self, file_id: str) -> None:
        """Raises NotFoundError, ConflictError while a batch still reads it."""
        with self._translated():
            _check(self._http.delete(f"/v1/files/{file_id}"))

    def embed_corpus(
        self,
        texts: Iterable[str],
        *,
        model: str | None = None,
        device: str = "auto",
        prompt_name: str = "",
        show_progress: bool = True,
    ) -> Vectors:
        """Vectors for any iterable through a job: streamed out, waited for, fetched; float32 (n, dim), in order.

        Args:
            show_progress: a bar on stderr, with hits and time left.

        Raises:
            ConflictError: a text failed, or the job was cancelled; the message says how many, or why.
        """
        with _progress_bar(visible=show_progress) as show:
            job = self.submit(texts, model=model, device=device, prompt_name=prompt_name)
            job = self.wait(job.id, on_progress=show)
        return self.results(job.id)

    def models(self) -> list[RemoteModel]:
        """Every model that a worker has served."""
        return [_pick(RemoteModel, item) for item in self._json("GET", "/v1/models")["data"]]

    def ready(self) -> dict[str, str]:
        """Part → "ok" or what is wrong. Raises UnavailableError when there is no server."""
        with self._translated():
            parts: dict[str, str] = self._http.get("/health/ready").json()["parts"]
        return parts

    def _json(self, method: str, path: str, **request: Any) -> Any:
        """One exchange, retried while the server is overloaded or starting."""
        for attempt in range(_RETRIES + 1):
            try:
                with self._translated():
                    return _checked(self._http.request(method, path, **request))
            except UnavailableError as error:
                if attempt == _RETRIES:
                    raise
                wanted = getattr(error, "retry_after_s", None)
                pause = 0.5 * 2**attempt * random.uniform(0.75, 1.25)  # noqa: S311  # spreads clients, hides nothing
                time.sleep(min(_LONGEST_PAUSE_S, wanted or pause))
        raise AssertionError("unreachable")

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except httpx.TimeoutException as error:
            raise TimedOutError(f"{self.url} did not answer in time ({type(error).__name__})") from error
        except httpx.UnsupportedProtocol:
            raise BadInputError(f"{self.url!r} is not an http:// or https:// address") from None
        except httpx.TransportError as error:
            raise UnavailableError(
                f"no semel server answers at {self.url} ({error}); start one with 'semel up', or set SEMEL_URL"
            ) from error


@contextmanager
def _progress_bar(*, visible: bool) -> Iterator[Callable[[RemoteJob], None]]:
    if not visible:
        yield _ignore
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[hits]} hits"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task("sending", total=None, hits=0)

        def show(job: RemoteJob) -> None:
            progress.update(bar, description=job.model, total=job.total, completed=job.counts.done, hits=job.counts.hit)

        yield show


def _plain(value: Any) -> object:
    """NumPy's numbers as JSON has them; dates, decimals and the like in their own words, as the server has them."""
    return value.tolist() if hasattr(value, "tolist") else str(value)


def _lines(
    texts: Iterable[str | Mapping[str, Any]], on_sent: Callable[[int], None], text_field: str = "text"
) -> Iterator[bytes]:
    buffer, size, sent = list[bytes](), 0, 0
    for text in texts:
        row = {text_field: text} if isinstance(text, str) else dict(text)
        line = json.dumps(row, default=_plain).encode() + b"\n"
        buffer.append(line)
        size += len(line)
        sent += 1
        if size >= _UPLOAD_BYTES:
            yield b"".join(buffer)
            buffer, size = [], 0
            on_sent(sent)
    yield b"".join(buffer)
    on_sent(sent)


def _batch(data: dict[str, Any]) -> RemoteBatch:
    counts, errors = data["request_counts"], (data["errors"] or {"data": []})["data"]
    same = {name: data[name] for name in ("id", "input_file_id", "output_file_id", "error_file_id")}
    return RemoteBatch(
        **same,
        status=JobStatus(data["status"]),
        total=counts["total"],
        completed=counts["completed"],
        failed=counts["failed"],
        errors=[error["message"] for error in errors],
    )


def _checked(response: httpx.Response) -> Any:
    _check(response)
    return response.json()


def _check(response: httpx.Response) -> None:
    if not response.is_error:
        return
    try:
        body = response.json()
        error = body.get("error", body)  # Cohere's shape, on /v1/rerank, has the message outside
        message, code = str(error["message"]), str(error["code"])
    except (ValueError, KeyError, TypeError, AttributeError):
        message, code = response.text[:200], "unknown"
    kind = _ERRORS.get(response.status_code)
    if kind is None:
        kind = BadInputError if response.status_code < 500 else SemelError
    if response.status_code in _RETRY_STATUS and not issubclass(kind, UnavailableError):
        kind = UnavailableError
    raised = remade(kind, message)
    raised.__dict__.update(remote_code=code, retry_after_s=_retry_after_s(response))
    raise raised


def _retry_after_s(response: httpx.Response) -> float | None:
    try:
        return float(response.headers["retry-after"])
    except (KeyError, ValueError):
        return None


def _job(item: dict[str, Any]) -> RemoteJob:
    counts = {name: item["counts"][name] for name in Counts.__dataclass_fields__}
    job: RemoteJob = _pick(
        RemoteJob,
        {
            **item,
            "status": JobStatus(item["status"]),
            "total": item["counts"]["total"],
            "counts": Counts(**counts),
            "error": ItemError(**item["error"]) if item["error"] else None,
        },
    )
    return job


def _pick(kind: Any, item: dict[str, Any]) -> Any:
    return kind(**{name: item[name] for name in kind.__dataclass_fields__})
