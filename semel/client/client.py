"""The HTTP client: `from semel import Client`. Needs numpy and httpx, nothing else of semel.

client = Client("http://127.0.0.1:8700")
vectors = client.embed(["one", "two"])                 # float32 (2, dim)
job = client.submit(lines)                              # any iterable, streamed
vectors = client.results(client.wait(job.id).id)
"""

import base64
import io
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Unpack

import numpy as np
from httpx_sse import EventSource

from semel.client.batches import BatchCalls
from semel.client.exchange import Exchange
from semel.client.progress import progress_bar
from semel.client.records import JobEvent, Relevance, RemoteJob, RemoteModel, job_of, model_of
from semel.client.upload import as_lines, ignore
from semel.errors import TimedOutError, UnavailableError
from semel.values.job import JobOptions
from semel.values.vectors import Vectors

DEFAULT_URL = "http://127.0.0.1:8700"


class Client(BatchCalls):
    """A semel server.

    Args:
        url: its address; default `SEMEL_URL`, else the one of `semel up`.
        api_key: default `SEMEL_API_KEY`; a server on a loopback address may need none.
        timeout_s: for one answer. Uploads and downloads may take as long as they move.
    """

    def __init__(self, url: str | None = None, *, api_key: str | None = None, timeout_s: float = 150.0) -> None:
        self.url = (url or os.environ.get("SEMEL_URL") or DEFAULT_URL).rstrip("/")
        key = api_key or os.environ.get("SEMEL_API_KEY") or ""
        super().__init__(Exchange(self.url, api_key=key, timeout_s=timeout_s))

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._exchange.close()

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
        data = self._exchange.json("POST", "/v1/embeddings", json=body)["data"]
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
        results = self._exchange.json("POST", "/v1/rerank", json=body)["results"]
        return [Relevance(item["index"], item["relevance_score"]) for item in results]

    def submit(
        self,
        texts: Iterable[str | Mapping[str, Any]],
        *,
        idempotency_key: str | None = None,
        on_sent: Callable[[int], None] = ignore,
        **options: Unpack[JobOptions],
    ) -> RemoteJob:
        """Send texts as a job, streamed: memory stays flat for any iterable.

        Args:
            texts: texts, or rows: `{"text": …}`, for a cross-encoder `{"query": …, "document": …}`. The `id` and every
                other field of a row come back with its result.
            idempotency_key: sent again with the same texts within a day, it returns the same job.
            on_sent: called now and then with the number of texts sent so far.
            options: see `semel.values.job.JobOptions`.

        Raises:
            BadInputError: the server refuses an option or a row; says which and why.
            OverloadedError: too much work waits; nothing was accepted.
            UnavailableError: the server, or a part of it, does not answer.
        """
        params: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
        params["metadata"] = json.dumps(options.get("metadata") or {})
        headers = {"content-type": "application/x-ndjson"}
        if idempotency_key:
            headers["idempotency-key"] = idempotency_key
        lines = as_lines(texts, on_sent, options.get("text_field") or "text")
        return job_of(self._exchange.once("POST", "/v1/jobs", params=params, content=lines, headers=headers))

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
        answer = self._exchange.once(
            "PUT",
            "/v1/cache/vectors",
            params={"model": model, "prompt_name": prompt_name},
            content=as_lines(lines, ignore),
            headers={"content-type": "application/x-ndjson"},
        )
        return answer["stored"], answer["present"]

    def job(self, job_id: str) -> RemoteJob:
        """Raises NotFoundError."""
        return job_of(self._exchange.json("GET", f"/v1/jobs/{job_id}"))

    def jobs(
        self, *, limit: int = 20, after: str | None = None, status: str | None = None, model: str | None = None
    ) -> list[RemoteJob]:
        """The newest first; `after` is the id of the last job of the page before."""
        wanted = {"limit": limit, "after": after, "status": status, "model": model}
        params = {name: value for name, value in wanted.items() if value is not None}
        return [job_of(item) for item in self._exchange.json("GET", "/v1/jobs", params=params)["data"]]

    def cancel(self, job_id: str) -> RemoteJob:
        """Raises NotFoundError, ConflictError when it has ended."""
        return job_of(self._exchange.json("POST", f"/v1/jobs/{job_id}/cancel"))

    def retry(self, job_id: str) -> RemoteJob:
        """Run again what failed in a job that has ended. Raises NotFoundError, ConflictError when it has not."""
        return job_of(self._exchange.json("POST", f"/v1/jobs/{job_id}/retry"))

    def delete(self, job_id: str) -> None:
        """Forget a job that has ended. Raises NotFoundError, ConflictError when it has not."""
        self._exchange.once("DELETE", f"/v1/jobs/{job_id}")

    def events(self, job_id: str) -> Iterator[JobEvent]:
        """The job whenever something changed, with its rate, until it has ended. Raises NotFoundError."""
        with self._exchange.stream("GET", f"/v1/jobs/{job_id}/events") as response:
            for event in EventSource(response).iter_sse():
                data = event.json()
                yield JobEvent(job_of(data["job"]), data["texts_per_s"], data["eta_s"])

    def wait(
        self,
        job_id: str,
        *,
        timeout_s: float | None = None,
        on_progress: Callable[[RemoteJob], None] = ignore,
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
        file = io.BytesIO(data)
        np.lib.format.read_magic(file)
        np.lib.format.read_array_header_1_0(file)
        expected = file.tell() + job.total * job.dimensions * 4
        if len(data) != expected:
            raise UnavailableError(f"the results of {job_id} ended after {len(data)} of {expected} bytes; fetch again")
        return np.frombuffer(data, "<f4", offset=file.tell()).reshape(job.total, job.dimensions)

    @contextmanager
    def results_stream(
        self, job_id: str, *, fmt: str, offset: int = 0, limit: int | None = None
    ) -> Iterator[Iterator[bytes]]:
        """The bytes of the results in `ndjson`, `npy`, `arrow` or `parquet`, as they arrive.

        Args:
            offset, limit: of the texts; a download that was cut off goes on where it was.
        """
        params: dict[str, str | int] = {"format": fmt, "offset": offset, **({} if limit is None else {"limit": limit})}
        with self._exchange.stream("GET", f"/v1/jobs/{job_id}/results", params=params) as response:
            yield response.iter_bytes()

    def embed_corpus(
        self,
        texts: Iterable[str],
        *,
        show_progress: bool = True,
        **options: Unpack[JobOptions],
    ) -> Vectors:
        """Vectors for any iterable through a job: streamed out, waited for, fetched; float32 (n, dim), in order.

        Args:
            show_progress: a bar on stderr, with hits and time left.
            options: see `semel.values.job.JobOptions`.

        Raises:
            ConflictError: a text failed, or the job was cancelled; the message says how many, or why.
        """
        with progress_bar(visible=show_progress) as show:
            job = self.submit(texts, **options)
            job = self.wait(job.id, on_progress=show)
        return self.results(job.id)

    def models(self) -> list[RemoteModel]:
        """Every model that a worker has served."""
        return [model_of(item) for item in self._exchange.json("GET", "/v1/models")["data"]]

    def ready(self) -> dict[str, str]:
        """Part → "ok" or what is wrong. Raises UnavailableError when there is no server."""
        parts: dict[str, str] = self._exchange.answer("GET", "/health/ready")["parts"]
        return parts
