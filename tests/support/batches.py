"""Short ways to make the batches that tests need."""

import json
from collections.abc import Sequence
from typing import Any

from semel.tasks.jobs.batches import Batch
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
