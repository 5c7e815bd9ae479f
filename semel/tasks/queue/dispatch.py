"""Dispatch: keep a few chunks in each queue, and let the jobs take turns.

Redis never holds more than a window of ~100-byte messages, however large the corpus, and a small job starts at once
even if a large one was submitted before it.
"""

from celery import Celery
from kombu.exceptions import OperationalError

from semel.errors import UnavailableError
from semel.log import get_log
from semel.tasks.fleet.card import WorkerCard
from semel.tasks.fleet.roster import Roster
from semel.tasks.jobs.chunks import ChunkStore
from semel.tasks.queue.names import EMBED_CHUNK, queue_name
from semel.tracing import is_on, span, within
from semel.values.device import device_kind
from semel.values.text import Lane

log = get_log("dispatch")

WINDOW_PER_WORKER = 8
"""Chunks under way per worker: enough to keep the device busy while one is stored and the next one is read."""

MAX_WINDOW = 48
"""At most this many chunks are under way on a queue: fewer than a worker has threads, so that an interactive request
finds a free one even if a single worker has all of them."""


class Dispatcher:
    """Sends chunks to the queues. Any process may do so at any time."""

    def __init__(self, chunks: ChunkStore, app: Celery, roster: Roster) -> None:
        self._chunks = chunks
        self._app = app
        self._roster = roster

    def top_up(self, lane: Lane, device: str) -> None:
        """Send chunks until the window of this queue is full.

        A message that Redis does not accept is not lost: its chunk is marked as sent, and a sweep sends it again.
        """
        live = self._live(device)
        window = min(MAX_WINDOW, WINDOW_PER_WORKER * max(1, len(live)))
        served = {bytes.fromhex(space) for card in live for space in card.spaces} or None
        places = self._chunks.take_for_dispatch(lane=lane, device=device, window=window, served=served)
        parents = self._chunks.traceparents({job_id for job_id, _ in places}) if places and is_on() else {}
        for place in places:
            try:
                with within(parents.get(place[0])), span("semel.send"):  # the job's trace, not this thread's
                    self._app.send_task(
                        EMBED_CHUNK,
                        args=list(place),
                        queue=queue_name(lane, device),
                        ignore_result=True,
                        argsrepr=f"(chunk {place[1]} of {place[0]})",
                    )
            except OperationalError as error:
                log.warning(
                    "message not sent, the next sweep sends it again", job=place[0], chunk=place[1], reason=str(error)
                )
                return

    def _live(self, device: str) -> list[WorkerCard]:
        """The live workers of this queue; an empty list when Redis does not answer."""
        try:
            return [card for card in self._roster.recently_live() if device_kind(card.device) == device]
        except UnavailableError:
            return []
