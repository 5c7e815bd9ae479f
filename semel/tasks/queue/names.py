"""Names of queues and tasks: one queue for each lane and device.

Separate queues are the reliable lanes: Redis priorities are several lists that one worker polls in turn.
"""

from semel.values.device import device_kind
from semel.values.text import Lane

EMBED_CHUNK = "semel.embed_chunk"
"""Arguments: job id, position. The texts are in the database."""

EMBED_TEXTS = "semel.embed_texts"
"""Arguments: one dict, see `semel.tasks.queue.sender.Request`. For small requests, the texts travel along."""

READ_TEXTS = "semel.read_texts"
"""Arguments: one dict, see `semel.tasks.queue.sender.Request`. Tells how a model reads them, and computes nothing."""


def queue_name(lane: Lane, device: str) -> str:
    """`bulk.cpu`, `interactive.cuda`: workers of one kind share a queue, whatever their index."""
    return f"{lane.value}.{device_kind(device)}"
