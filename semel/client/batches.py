"""Files and batches, in OpenAI's shape: a file of requests in, a file of answers out."""

import time
from pathlib import Path

from semel.atomic_write import atomic_write
from semel.client.exchange import Exchange
from semel.client.records import RemoteBatch, batch_of
from semel.errors import TimedOutError


class BatchCalls:
    """The calls of `Client` for files and batches."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    def upload(self, path: Path) -> str:
        """Upload a file of batch requests, streamed; returns its id. Raises BadInputError."""
        with path.open("rb") as file:
            form = {"data": {"purpose": "batch"}, "files": {"file": (path.name, file)}}
            return str(self._exchange.once("POST", "/v1/files", **form)["id"])

    def submit_batch(
        self, file_id: str, *, endpoint: str = "/v1/embeddings", metadata: dict[str, str] | None = None
    ) -> RemoteBatch:
        """Run every request of an uploaded file. Raises BadInputError, NotFoundError."""
        wanted = {"input_file_id": file_id, "endpoint": endpoint, "metadata": metadata}
        return batch_of(self._exchange.json("POST", "/v1/batches", json=wanted))

    def batch(self, batch_id: str) -> RemoteBatch:
        """Raises NotFoundError."""
        return batch_of(self._exchange.json("GET", f"/v1/batches/{batch_id}"))

    def cancel_batch(self, batch_id: str) -> RemoteBatch:
        """Stop it; what is done goes into its output file. Raises NotFoundError, ConflictError when it has ended."""
        return batch_of(self._exchange.json("POST", f"/v1/batches/{batch_id}/cancel"))

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
        with self._exchange.stream("GET", f"/v1/files/{file_id}/content") as response, atomic_write(path) as file:
            for block in response.iter_bytes(1 << 20):
                file.write(block)

    def delete_file(self, file_id: str) -> None:
        """Raises NotFoundError, ConflictError while a batch still reads it."""
        self._exchange.once("DELETE", f"/v1/files/{file_id}")
