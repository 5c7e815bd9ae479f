"""Requests that wait for their answers, and the messages that they travel in."""

import math
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field

from semel.tasks.queue.message import Answer, Reading, Request
from semel.values.model import Space

MESSAGES_PER_WORKER = 4
"""Messages of one vector space under way for each worker that serves it, at most: one is computed while the next one
is read, one is stored, and one is on its way."""

SPACING_S = 0.1
"""If each worker has a message, the next one waits so long for more requests: each message costs both sides several
milliseconds, see docs/explanation/performance.md."""


@dataclass(eq=False)
class Group:
    """The requests for one vector space and one task.

    Attributes:
        reading: what the workers report of each text; None to compute the vectors.
        waiting: the requests that were not sent yet, the oldest first.
        under_way: messages that still lack an answer.
        workers: that serve the space.
        sent_at: when the latest message was sent, in monotonic seconds.
    """

    space: Space
    reading: Reading | None
    waiting: "deque[Pending]" = field(default_factory=deque)
    under_way: int = 0
    workers: int = 1
    sent_at: float = -math.inf

    def pause_s(self, now: float) -> float | None:
        """Seconds until the next message may be sent; None if none waits, or as long as too many are under way.

        Args:
            now: monotonic seconds.
        """
        if not self.waiting or self.under_way >= MESSAGES_PER_WORKER * self.workers:
            return None
        return 0.0 if self.under_way < self.workers else max(0.0, self.sent_at + SPACING_S - now)


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
