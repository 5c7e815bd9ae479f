"""Requests that wait for their answers, and the messages that they travel in."""

from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field

from semel.tasks.queue.message import Answer, Reading, Request
from semel.values.model import Space

MESSAGES_PER_WORKER = 4
"""Messages of one vector space under way for each worker that serves it: one is computed while the next one is read,
one is stored, and one is on its way."""


@dataclass(eq=False)
class Group:
    """The requests for one vector space and one task.

    Attributes:
        reading: what the workers report of each text; None to compute the vectors.
        waiting: the requests that were not sent yet, the oldest first.
        under_way: messages that still lack an answer.
        room: messages that may be under way.
    """

    space: Space
    reading: Reading | None
    waiting: "deque[Pending]" = field(default_factory=deque)
    under_way: int = 0
    room: int = MESSAGES_PER_WORKER


@dataclass(eq=False)
class Message:
    """A message on its way.

    Attributes:
        open: ids of its requests that lack an answer.
        device: the kind of device that it was sent to; empty until it is sent.
        sent_at: monotonic seconds.
    """

    group: Group
    open: set[str]
    device: str = ""
    sent_at: float = 0.0


@dataclass(eq=False)
class Pending:
    """A request that waits for its answer.

    Attributes:
        group: the requests that it may share a message with.
        device: the kind of device that it was first meant for.
        deadline: monotonic seconds.
        parent: the `traceparent` of its caller.
        answer: gets the answer, or the error of the whole request.
        message: the message that it is in; None while it waits for one.
        was_sent: whether a message with it may be in a queue or in a worker.
    """

    request: Request
    group: Group
    device: str
    deadline: float
    parent: str | None
    answer: "Future[Answer]" = field(default_factory=Future)
    message: Message | None = None
    was_sent: bool = False
