"""Short ways to make the batches that tests need."""

import json
import time
from collections.abc import Sequence
from typing import Any

from sqlalchemy import select, update

from semel.api.batch.runner import BatchRunner
from semel.tasks.jobs.batches import Batch
from semel.tasks.jobs.schema import batches as batch_rows
from semel.tasks.jobs.schema import jobs as job_rows
from tests.support.parts import Parts


def line(custom_id: str, url: str = "/v1/embeddings", **body: Any) -> dict[str, Any]:
    """A line of the input file."""
    return {"custom_id": custom_id, "method": "POST", "url": url, "body": {"model": "fake", **body}}


def new_batch(
    running: Parts, lines: Sequence[Any], endpoint: str = "/v1/embeddings", *, window_s: float = 3600.0
) -> Batch:
    """A batch whose input file has these lines: objects, or bytes as they are."""
    stores = running.services.stores
    with stores.files.writing() as file:
        file.write(b"\n".join(text if isinstance(text, bytes) else json.dumps(text).encode() for text in lines))
        stored = stores.files.add(file, purpose="batch", filename="requests.jsonl")
    return stores.batches.create(
        endpoint=endpoint,
        input_file_id=stored.id,
        completion_window="24h",
        window_s=window_s,
        metadata={},
        output_expires_s=None,
    )


def records(running: Parts, file_id: str | None) -> dict[str, Any]:
    """The records of an output or error file, by custom id; none when there is no such file."""
    if file_id is None:
        return {}
    content = running.services.stores.files.path(file_id).read_text()
    return {record["custom_id"]: record for record in map(json.loads, content.splitlines())}


def state(running: Parts, batch: Batch) -> Batch:
    """The batch as it is now."""
    return running.services.stores.batches.get(batch.id)


def finished(running: Parts, runner: BatchRunner, lines: list[Any], endpoint: str = "/v1/embeddings") -> Batch:
    """A batch of these lines after a few steps of the runner."""
    batch = new_batch(running, lines, endpoint)
    for _ in range(5):
        runner._once()
    return state(running, batch)


def job_ids(running: Parts) -> set[str]:
    """The ids of all jobs."""
    with running.services.stores.db.read() as conn:
        return set(conn.execute(select(job_rows.c.id)).scalars())


def lose_lease(running: Parts) -> None:
    """Another process takes every batch over."""
    with running.services.stores.db.write() as conn:
        conn.execute(update(batch_rows).values(lease_owner="another", lease_until=time.time() + 60))


def expire(running: Parts) -> None:
    """End the completion window of every batch."""
    with running.services.stores.db.write() as conn:
        conn.execute(update(batch_rows).values(expires_at=time.time() - 1))
