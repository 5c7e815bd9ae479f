"""How full each queue is, in messages, texts and seconds of work."""

from collections.abc import Sequence

from pydantic import BaseModel, Field

from semel.tasks.fleet.card import WorkerCard
from semel.tasks.jobs.counts import JobCounts, Waiting
from semel.tasks.queue.backlog import Backlog
from semel.tasks.queue.names import queue_name
from semel.values.device import device_kind
from semel.values.text import Lane


class QueueState(BaseModel):
    """One queue. A text that arrives now waits `work_s`, at the measured rates."""

    queue: str
    lane: Lane
    device: str
    messages: int = Field(description="Messages that wait in Redis; a worker takes none that it cannot begin.")
    texts: int = Field(description="Texts of open jobs and of requests that are not done, wherever they are.")
    work_s: float | None = Field(
        description="Seconds of work; null while texts wait and no live worker has measured a rate."
    )
    oldest_s: float = Field(description="Age of the oldest message that no worker has taken.")
    workers: int = Field(description="Live workers of this kind of device.")


def queue_states(counts: JobCounts, backlog: Backlog, live: Sequence[WorkerCard]) -> list[QueueState]:
    """Every queue that has a live worker or work. Raises UnavailableError when Redis does not answer."""
    kinds, waiting = [device_kind(card.device) for card in live], counts.waiting()
    work = [each for here in waiting.values() for each in here.work]
    states, now = [], counts.now()
    for device in sorted({*kinds, *(device for _, device in waiting), *backlog.devices()}):
        for lane in Lane:
            here = waiting.get((lane, device), Waiting([], None))
            texts = here.texts + (backlog.requests(device) if lane is Lane.INTERACTIVE else 0)
            states.append(
                QueueState(
                    queue=queue_name(lane, device),
                    lane=lane,
                    device=device,
                    messages=backlog.messages(lane, device),
                    texts=texts,
                    work_s=backlog.known_seconds(lane, device, waiting=work),
                    oldest_s=max(0.0, now - (here.oldest_sent_at or now)),
                    workers=kinds.count(device),
                )
            )
    return states
