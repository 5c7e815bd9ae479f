"""Names of queues."""

import pytest

from semel.tasks.queue.names import queue_name
from semel.values.text import Lane


@pytest.mark.parametrize(
    ("lane", "device", "expected"),
    [
        (Lane.BULK, "cpu", "bulk.cpu"),
        (Lane.INTERACTIVE, "cuda:0", "interactive.cuda"),
        (Lane.BULK, "cuda:7", "bulk.cuda"),
    ],
)
def test_devices_of_one_kind_share_the_queue_of_a_lane(lane: Lane, device: str, expected: str) -> None:
    assert queue_name(lane, device) == expected
