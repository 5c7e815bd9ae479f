"""Dispatch: keep each queue filled with a few chunks, and let the jobs take turns.

Redis never holds more than a window of ~100-byte messages, whatever the corpus, and a small job that comes after a
large one starts at once.
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
"""Chunks under way for each worker: enough that the device never waits while one is stored and the next is read."""

MAX_WINDOW = 48
"""Below the threads of a worker, so that interactive requests find one even when a single worker has them all."""


class Dispatcher:
    """Sends chunks to the queues. Any process may call it at any time."""

    def __init__(self, chunks: ChunkStore, app: Celery, roster: Roster) -> None:
        self._chunks = chunks
        self._app = app
        self._roster = roster

    def top_up(self, lane: Lane, device: str) -> None:
        """Send what fits into the window of this queue.

        A message that Redis does not take is not lost: its chunk is marked as sent, and maintenance sends it again.
        """
        live = self._live(device)
        window = min(MAX_WINDOW, WINDOW_PER_WORKER * max(1, len(live)))
        served = {bytes.fromhex(space) for card in live for space in card.spaces} or None
        places = self._chunks.take_for_dispatch(lane=lane, device=device, window=window, served=served)
        parents = self._chunks.traceparents({job_id for job_id, _ in places}) if places and is_on() else {}
        for place in places:
            try:
                with within(parents.get(place[0])), span("semel.send"):  # whoever happens to send it
                    self._app.send_task(
                        EMBED_CHUNK,
                        args=list(place),
                        queue=queue_name(lane, device),
                        ignore_result=True,
                        argsrepr=f"(chunk {place[1]} of {place[0]})",
                    )
            except OperationalError as error:
                log.warning(
                    "message not sent, maintenance will repeat it", job=place[0], chunk=place[1], reason=str(error)
                )
                return

    def _live(self, device: str) -> list[WorkerCard]:
        """The workers of this queue; none when Redis does not answer."""
        try:
            return [card for card in self._roster.live_lately() if device_kind(card.device) == device]
        except UnavailableError:
            return []
