"""The HTTP client: `from semel import Client`. It needs only numpy and httpx.

client = Client("http://127.0.0.1:8700")
vectors = client.embed(["one", "two"])                 # float32 (2, dim)
job = client.submit(lines)                              # any iterable, sent as a stream
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
    """A connection to a semel server. Thread-safe.

    Every method raises UnauthorizedError or ForbiddenError for a missing or insufficient API key, OverloadedError if
    too much work waits, and UnavailableError if the server, or a service behind it, does not answer.

    Args:
        url: the server's address; by default `SEMEL_URL`, otherwise the address of `semel up`.
        api_key: by default `SEMEL_API_KEY`; a server on a loopback address may need none.
        timeout_s: for one answer. Uploads and downloads may take longer as long as data moves.
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
        """Close the connections; leaving the `with` block of a client does the same."""
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
            dimensions: cut the vectors to this size, if the model was trained for it.
            input_type: `query` or `document`: selects the model's prompt for such texts, if it has one.
            prompt_name: selects a prompt by its name instead.
            truncate: if False, a text above the model's limit is refused; by default it is cut.

        Raises:
            BadInputError: the server refuses the input; the message names the text and the reason.
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
        """The documents by their relevance to the query, the best first.

        Args:
            model: a cross-encoder or an embedding model; None for the server's default.
            top_n: how many to return; None for all.

        Raises:
            BadInputError: the server refuses the input; the message names the document and the reason.
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
        """Submit texts as a job. They are sent as a stream, so memory use stays flat for any iterable.

        Args:
            texts: texts, or rows: `{"text": …}`, for a cross-encoder `{"query": …, "document": …}`. The `id` and every
                other field of a row are returned with its result.
            idempotency_key: sending the same texts again with the same key within a day returns the same job.
            on_sent: called from time to time with the number of texts sent so far.
            options: see `semel.values.job.JobOptions`.

        Raises:
            BadInputError: the server refuses an option or a row; the message names it and the reason.
            OverloadedError: too much work waits; nothing was accepted.
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
        """Import vectors that this model computed elsewhere; the server computes some of them again and compares.

        Args:
            rows: texts with their vectors; they are sent as a stream.

        Returns:
            The number of stored vectors, and the number of texts that the cache already had.

        Raises:
            BadInputError: a vector is not one of this model; the message names it. Earlier ones may have been stored.
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
        """The current state of a job. Raises NotFoundError."""
        return job_of(self._exchange.json("GET", f"/v1/jobs/{job_id}"))

    def jobs(
        self, *, limit: int = 20, after: str | None = None, status: str | None = None, model: str | None = None
    ) -> list[RemoteJob]:
        """One page of the jobs, the newest first.

        Args:
            limit: the size of the page.
            after: the id of the last job of the previous page.
            status: only jobs in this state.
            model: only jobs of this model.

        Raises:
            BadInputError: the server refuses an argument; the message names it.
        """
        filters = {"limit": limit, "after": after, "status": status, "model": model}
        params = {name: value for name, value in filters.items() if value is not None}
        return [job_of(item) for item in self._exchange.json("GET", "/v1/jobs", params=params)["data"]]

    def cancel(self, job_id: str) -> RemoteJob:
        """Stop a job. Raises NotFoundError, and ConflictError if it has already ended."""
        return job_of(self._exchange.json("POST", f"/v1/jobs/{job_id}/cancel"))

    def retry(self, job_id: str) -> RemoteJob:
        """Compute the failed texts of an ended job again. Raises NotFoundError, and ConflictError if it runs."""
        return job_of(self._exchange.json("POST", f"/v1/jobs/{job_id}/retry"))

    def delete(self, job_id: str) -> None:
        """Delete an ended job; its vectors stay in the cache. Raises NotFoundError, and ConflictError if it runs."""
        self._exchange.once("DELETE", f"/v1/jobs/{job_id}")

    def events(self, job_id: str) -> Iterator[JobEvent]:
        """The job and its rate after each change, until it has ended. Raises NotFoundError."""
        with self._exchange.stream("GET", f"/v1/jobs/{job_id}/events") as response:
            for event in EventSource(response).iter_sse():
                data = event.json()
                yield JobEvent(job_of(data["job"]), data["texts_per_s"], data["eta_s"])

    def wait(
        self, job_id: str, *, timeout_s: float | None = None, on_progress: Callable[[RemoteJob], None] = ignore
    ) -> RemoteJob:
        """Poll until the job ends, and return it whatever its `status`.

        Args:
            timeout_s: how long to wait; None for ever.
            on_progress: called with the job after each poll.

        Raises:
            NotFoundError: there is no such job.
            TimedOutError: the job is still running after `timeout_s`.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        pause_s = 0.02
        while True:
            job = self.job(job_id)
            on_progress(job)
            if job.status.ended:
                return job
            if deadline is not None and time.monotonic() > deadline:
                raise TimedOutError(f"job {job_id} is still {job.status} after {timeout_s:g} s and continues")
            time.sleep(pause_s)
            pause_s = min(pause_s * 1.5, 0.5)

    def results(self, job_id: str) -> Vectors:
        """All vectors of a completed job, float32 (total, dim), in the order of its texts.

        Raises:
            NotFoundError: there is no such job.
            ConflictError: the job is not completed, or some texts failed (`results_stream` shows which).
            UnavailableError: the answer was cut off.
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
            raise UnavailableError(f"the results of {job_id} ended after {len(data)} of {expected} bytes; try again")
        return np.frombuffer(data, "<f4", offset=file.tell()).reshape(job.total, job.dimensions)

    @contextmanager
    def results_stream(
        self, job_id: str, *, fmt: str, offset: int = 0, limit: int | None = None
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
        with self._exchange.stream("GET", f"/v1/jobs/{job_id}/results", params=params) as response:
            yield response.iter_bytes()

    def embed_corpus(
        self, texts: Iterable[str], *, show_progress: bool = True, **options: Unpack[JobOptions]
    ) -> Vectors:
        """Vectors for any iterable, computed by a job; float32 (n, dim), in order.

        Args:
            show_progress: show a bar on stderr, with hits and time left.
            options: see `semel.values.job.JobOptions`.

        Raises:
            BadInputError: the server refuses an option or a text; the message names it and the reason.
            ConflictError: some texts failed, or the job was cancelled; the message gives the number or the reason.
        """
        with progress_bar(visible=show_progress) as show:
            job = self.submit(texts, **options)
            job = self.wait(job.id, on_progress=show)
        return self.results(job.id)

    def models(self) -> list[RemoteModel]:
        """Every model that a worker has served."""
        return [model_of(item) for item in self._exchange.json("GET", "/v1/models")["data"]]

    def ready(self) -> dict[str, str]:
        """Part of the server → `ok`, or what is wrong with it. Raises UnavailableError if no server answers."""
        parts: dict[str, str] = self._exchange.answer("GET", "/health/ready")["parts"]
        return parts
