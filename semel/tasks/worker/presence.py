"""What a worker publishes about itself: its card with every heartbeat, a failure, and its departure."""

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import redis

from semel.backends.devices.usage import usage_of
from semel.backends.engine import Engine
from semel.errors import SemelError
from semel.log import get_log
from semel.repeating import Repeating
from semel.tasks.fleet.card import WorkerCard
from semel.tasks.fleet.meter import Meter
from semel.tasks.fleet.roster import BEAT_S, Roster
from semel.tasks.queue.transport import POLLS
from semel.tasks.worker.held import HeldRequests
from semel.tasks.worker.models import LoadedModels
from semel.tasks.worker.offers import Offers
from semel.tasks.worker.rates import KeptRates
from semel.values.device import DeviceInfo, Measured

log = get_log("worker")


class Presence:
    """This worker on the roster.

    Args:
        about: the device of this worker.
        measured: the result of `semel devices --measure` for the device, if it was run.
        rates: keeps the rates of the models for the next worker on this device.
        progress: returns (job id, position, finished texts) of each chunk that is being computed.
        held: the requests that this worker has taken.

    Attributes:
        state: `loading` from the start until the default model is in memory, then `ready`.
    """

    def __init__(
        self,
        roster: Roster,
        offers: Offers,
        models: LoadedModels,
        engine: Engine,
        meter: Meter,
        *,
        worker_id: str,
        about: DeviceInfo,
        measured: Measured | None,
        rates: KeptRates,
        progress: Callable[[], list[tuple[str, int, int]]],
        held: HeldRequests,
    ) -> None:
        self._roster = roster
        self._offers = offers
        self._models = models
        self._engine = engine
        self._meter = meter
        self._id = worker_id
        self._about = about
        self._measured = measured
        self._rates = rates
        self._progress = progress
        self._held = held
        self._started_at = time.time()
        self._publishing = threading.Lock()
        self._has_left = False
        self._beats = 0
        self.state = "loading"

    @contextmanager
    def beating(self) -> Iterator[None]:
        """Publish this worker every two seconds while the block runs, and sign off at its end."""
        heartbeat = Repeating("heartbeat", self.beat, every_s=BEAT_S, at_once=True)
        heartbeat.start()
        try:
            yield
        finally:
            self.sign_off()
            heartbeat.stop()

    def beat(self) -> None:
        """Publish this worker's current card, unless the worker has left the roster. Raises redis.RedisError."""
        self._offers.renew()
        self._beats += 1
        card = self._card()
        with self._publishing:  # or a heartbeat that is under way would bring a worker back that has left
            if not self._has_left:
                self._roster.beat(card)

    def report_failed(self, error: SemelError) -> None:
        """Publish that this worker ends because its device or its models cannot be used."""
        card = replace(self._card(), state="failed", why=str(error))
        try:
            with self._publishing:
                self._has_left = True
                self._roster.report_failed(card)
        except redis.RedisError as lost:
            log.warning("failure of this worker not published", reason=str(lost))

    def forget_failed(self) -> None:
        """Delete an earlier failure of this device, which works again."""
        try:
            self._roster.forget_failed(self._card())
        except redis.RedisError as error:
            log.warning("earlier failure of this device not deleted", reason=str(error))

    def sign_off(self) -> None:
        """Leave the roster, for good."""
        try:
            with self._publishing:
                if not self._has_left:
                    self._has_left = True
                    self._rates.write()
                    self._roster.leave(self._id)
        except redis.RedisError as error:
            log.warning("departure not published, the roster drops this worker after a few seconds", reason=str(error))

    def _card(self) -> WorkerCard:
        stats = self._engine.stats
        loaded = self._models.loaded()
        usage = usage_of(self._about.name)
        return WorkerCard(
            id=self._id,
            device=self._about.name,
            host=socket.gethostname(),
            pid=os.getpid(),
            started_at=self._started_at,
            beats=self._beats,
            state=self.state,
            dtype=loaded[0].producer.dtype if loaded else "",
            why=loaded[0].backend.get_model_info().why if loaded else "",
            about=self._about.why,
            software=self._about.software,
            models=self._offers.models,
            spaces=[space.fingerprint.hex() for space in self._offers.spaces],
            loaded=[next(iter(model.spaces.values())).model for model in loaded],
            load_s=round(sum(model.load_s for model in loaded), 2),
            memory_bytes=usage.memory_bytes,
            gpu_utilization=usage.gpu_utilization,
            texts_per_s=round(stats.texts / stats.busy_s, 1) if stats.busy_s else 0.0,
            rates=self._rates.update(stats.by_model, {space.model: space.weights for space in self._offers.spaces}),
            memory_halvings=stats.memory_halvings,
            polled_s=round(POLLS.age_s, 1),
            held_texts=self._held.texts,
            progress=self._progress(),
            measured=self._measured,
            work=self._meter.work(computed=stats.texts, tokens=stats.tokens, padded_tokens=stats.padded_tokens),
        )
