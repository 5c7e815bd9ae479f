"""Dispatch: keep some chunks in each queue, and let the jobs take turns.

Redis never holds more than a window of ~100-byte places, however large the corpus. Small chunks of one vector space
share a message.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby

from celery import Celery

from semel.errors import UnavailableError
from semel.log import get_log
from semel.tasks.fleet.card import WorkerCard
from semel.tasks.fleet.roster import Roster
from semel.tasks.jobs.chunks import ChunkStore
from semel.tasks.jobs.turns import Turn, Window
from semel.tasks.queue.names import EMBED_CHUNKS, EMBED_SMALL_CHUNKS, queue_name
from semel.tasks.queue.transport import NOT_SENT
from semel.tracing import is_on, span, within
from semel.values.device import device_kind
from semel.values.text import Lane

log = get_log("dispatch")

WINDOW_PER_WORKER = 8
"""Full chunks under way per worker and vector space: enough to keep the device busy while one is stored and the next
one is read."""

MAX_WINDOW = 48
"""At most this many full chunks are under way on a queue for each vector space."""

_SMALL = 1 / 16
"""Up to this weight a chunk is small: what is done for each message and transaction costs more than its texts."""

_MOST_CHUNKS = 256
"""Chunks in one message: more of them would make the first wait for the last."""


class Dispatcher:
    """Sends chunks to the queues. Any process may do so at any time."""

    def __init__(self, chunks: ChunkStore, app: Celery, roster: Roster) -> None:
        self._chunks = chunks
        self._app = app
        self._roster = roster

    def top_up(self, lane: Lane, device: str) -> None:
        """Send chunks until the window of this queue is full."""
        window = self.window(lane, device)
        self.send(window, self._chunks.take_for_dispatch(window))

    def window(self, lane: Lane, device: str) -> Window:
        """What may be under way on this queue now."""
        live = self._live(device)
        size = min(MAX_WINDOW, WINDOW_PER_WORKER * max(1, len(live)))
        served = {bytes.fromhex(space) for card in live for space in card.spaces} if live else None
        return Window(lane, device, size, served)

    def send(self, window: Window, turns: Sequence[Turn]) -> None:
        """Send chunks that are marked as sent.

        A message that Redis does not accept is not lost: its chunks are marked as sent, and a sweep sends them again.
        """
        if not turns:
            return
        parents = self._chunks.traceparents({turn.job_id for turn in turns}) if is_on() else {}
        for message in messages(turns, workers=len(self._live(window.device))):
            first = message[0]
            try:
                with within(parents.get(first.job_id)), span("semel.send"):  # the job's trace, not this thread's
                    self._send(queue_name(window.lane, window.device), message)
            except NOT_SENT as error:
                log.warning("message not sent, the next sweep sends it again", job=first.job_id, reason=str(error))
                return

    def _send(self, queue: str, message: Sequence[Turn]) -> None:
        places = [list(turn[:2]) for turn in message]
        small = max(turn.weight for turn in message) <= _SMALL
        self._app.send_task(
            EMBED_SMALL_CHUNKS if small else EMBED_CHUNKS,
            args=[places, message[0].fingerprint.hex()] if small else [places],
            queue=queue,
            ignore_result=True,
            argsrepr=_shown(message),
        )

    def _live(self, device: str) -> list[WorkerCard]:
        """The live workers of this queue; an empty list when Redis does not answer."""
        try:
            return [card for card in self._roster.recently_live() if device_kind(card.device) == device]
        except UnavailableError:
            return []


def messages(turns: Sequence[Turn], *, workers: int) -> Iterator[list[Turn]]:
    """The chunks of each message: of one vector space, and together at most one full chunk and one worker's part."""
    by_space = sorted(turns, key=lambda turn: turn.fingerprint)  # stable: turns keep their order
    for _, group in groupby(by_space, key=lambda turn: turn.fingerprint):
        mine = list(group)
        most = min(1.0, sum(turn.weight for turn in mine) / max(1, workers))
        message: list[Turn] = []
        weight = 0.0
        for turn in mine:
            if message and (weight + turn.weight > most or len(message) == _MOST_CHUNKS):
                yield message
                message, weight = [], 0.0
            message.append(turn)
            weight += turn.weight
        yield message


def _shown(message: Sequence[Turn]) -> str:
    """What Flower shows of a message."""
    first = f"chunk {message[0].position} of {message[0].job_id}"
    return f"({first})" if len(message) == 1 else f"({first} and {len(message) - 1} more)"
