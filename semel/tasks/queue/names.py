"""Names of queues and tasks. There is one queue for each lane and kind of device.

Lanes are separate queues because Celery's priorities on Redis are only several lists that a worker polls in turn.
"""

from semel.values.device import device_kind
from semel.values.text import Lane

EMBED_CHUNKS = "semel.embed_chunks"
"""Argument: a list of [job id, position], all of one vector space. The texts are in the database."""

EMBED_SMALL_CHUNKS = "semel.embed_small_chunks"
"""As `EMBED_CHUNKS`, for chunks that are so small that a worker computes those of several messages together. The second
argument is the fingerprint of their vector space, in hex."""

EMBED_TEXTS = "semel.embed_texts"
"""Argument: a small request with its texts; see `semel.tasks.queue.message.Request`."""

READ_TEXTS = "semel.read_texts"
"""Argument: as for `EMBED_TEXTS`. Reports how a model tokenises the texts, and computes no vectors."""


def queue_name(lane: Lane, device: str) -> str:
    """The name of a queue, such as `bulk.cpu`; `cuda:0` and `cuda:1` share `interactive.cuda`."""
    return f"{lane.value}.{device_kind(device)}"
