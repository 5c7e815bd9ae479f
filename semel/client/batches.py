"""Files and batches in OpenAI's format: a file of requests in, a file of answers out."""

import time
from pathlib import Path

from semel.atomic_write import atomic_write
from semel.client.exchange import Exchange
from semel.client.records import RemoteBatch, batch_of
from semel.errors import TimedOutError


class BatchCalls:
    """The methods of `Client` for files and batches.

    Args:
        exchange: sends the requests.
    """

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    def upload(self, path: Path) -> str:
        """Upload a file of batch requests as a stream; returns its id.

        Raises:
            BadInputError: the file is too large or cannot be used.
            OSError: the file cannot be read.
        """
        with path.open("rb") as file:
            form = {"data": {"purpose": "batch"}, "files": {"file": (path.name, file)}}
            return str(self._exchange.once("POST", "/v1/files", **form)["id"])

    def submit_batch(
        self, file_id: str, *, endpoint: str = "/v1/embeddings", metadata: dict[str, str] | None = None
    ) -> RemoteBatch:
        """Run every request of an uploaded file.

        Args:
            file_id: what `upload` returned.
            endpoint: the API path that each request of the file is for.
            metadata: returned with the batch.

        Raises:
            BadInputError: the server refuses an argument; the message names it.
            NotFoundError: there is no such file.
        """
        body = {"input_file_id": file_id, "endpoint": endpoint, "metadata": metadata}
        return batch_of(self._exchange.json("POST", "/v1/batches", json=body))

    def batch(self, batch_id: str) -> RemoteBatch:
        """The current state of a batch. Raises NotFoundError."""
        return batch_of(self._exchange.json("GET", f"/v1/batches/{batch_id}"))

    def cancel_batch(self, batch_id: str) -> RemoteBatch:
        """Stop a batch; its output file will contain the answers so far.

        Raises:
            NotFoundError: there is no such batch.
            ConflictError: the batch has already ended.
        """
        return batch_of(self._exchange.json("POST", f"/v1/batches/{batch_id}/cancel"))

    def wait_batch(self, batch_id: str, *, timeout_s: float | None = None) -> RemoteBatch:
        """Poll until the batch ends, and return it whatever its `status`.

        Raises:
            NotFoundError: there is no such batch.
            TimedOutError: the batch is still running after `timeout_s`.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while not (batch := self.batch(batch_id)).status.ended:
            if deadline is not None and time.monotonic() > deadline:
                raise TimedOutError(f"batch {batch_id} is still {batch.status} after {timeout_s:g} s and continues")
            time.sleep(0.25)
        return batch

    def download(self, file_id: str, path: Path) -> None:
        """Write the content of a file to `path` as a stream; an existing file is replaced once all has arrived.

        Raises:
            NotFoundError: there is no such file on the server.
            OSError: `path` cannot be written.
        """
        with self._exchange.stream("GET", f"/v1/files/{file_id}/content") as response, atomic_write(path) as file:
            for block in response.iter_bytes(1 << 20):
                file.write(block)

    def delete_file(self, file_id: str) -> None:
        """Delete a file on the server.

        Raises:
            NotFoundError: there is no such file.
            ConflictError: a batch still reads it.
        """
        self._exchange.once("DELETE", f"/v1/files/{file_id}")
