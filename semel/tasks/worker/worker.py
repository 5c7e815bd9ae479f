"""A worker: one process, one device, consuming that device's queues with Celery's threads pool."""

import os
import socket
import uuid
from collections.abc import Sequence

import redis

from semel.backends.devices.find import describe
from semel.backends.devices.select import Measurements
from semel.backends.devices.verify import verify
from semel.backends.engine import Engine
from semel.cache.catalog import Catalog
from semel.cache.claims import RedisClaims
from semel.cache.store import VectorStore
from semel.db import Database
from semel.errors import BackendError, FingerprintError, ModelLoadError, SemelError, StorageFullError, UnavailableError
from semel.log import get_log
from semel.redis_client import connect_redis, wait_for_redis
from semel.repeating import Repeating
from semel.settings import Settings
from semel.tasks.fleet.failover import Failover
from semel.tasks.fleet.meter import Message, Meter
from semel.tasks.fleet.redis_owner import RENEW_S, RedisOwner
from semel.tasks.fleet.roster import BEAT_S, Roster
from semel.tasks.jobs.chunks import ChunkStore
from semel.tasks.jobs.installation import installation_id
from semel.tasks.jobs.moves import JobMoves
from semel.tasks.jobs.rows import Place
from semel.tasks.jobs.store import JobStore
from semel.tasks.jobs.sweep import Sweeper
from semel.tasks.queue.app import make_app
from semel.tasks.queue.dispatch import Dispatcher
from semel.tasks.worker.chunk import ChunkRunner
from semel.tasks.worker.consuming import consume
from semel.tasks.worker.device_loss import DeviceLoss, HangWatch
from semel.tasks.worker.duties import TOUCH_S, QueueCare
from semel.tasks.worker.embed import Embedder
from semel.tasks.worker.held import LOOK_S, HeldRequests
from semel.tasks.worker.metrics import WorkerMetrics
from semel.tasks.worker.models import LoadedModels
from semel.tasks.worker.offers import Offers
from semel.tasks.worker.pass_on import PassOn
from semel.tasks.worker.presence import Presence
from semel.tasks.worker.rates import KeptRates
from semel.tasks.worker.replies import Replies
from semel.tracing import annotate
from semel.values.device import device_kind
from semel.values.text import Lane

log = get_log("worker")


class Worker:
    """All parts of a worker process.

    Args:
        device: the name of the device, such as `cpu` or `cuda:0`, as `semel devices` lists it.

    Raises:
        UnavailableError: the database does not answer, or Redis refuses this worker.
        ConflictError: another installation uses this Redis.
    """

    def __init__(self, settings: Settings, *, device: str) -> None:
        self._settings = settings
        self._device = device
        self._id = f"{device}@{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:6]}"
        self._meter = Meter()
        self._loss = DeviceLoss()
        self._offers = Offers()
        self._open_services()
        self._open_device()
        self._open_work()
        self._open_presence()

    def _open_services(self) -> None:
        """Open the database, Redis and the stores on them; waits until Redis answers. Raises UnavailableError."""
        settings = self._settings
        self._redis = connect_redis(settings.redis_url, name=self._id)
        wait_for_redis(self._redis)
        db = Database(settings.database, max_bytes=settings.database_max_bytes, kept_connections=6)
        db.upgrade()
        self._redis_owner = RedisOwner(self._redis, installation_id(db))
        self._redis_owner.renew()
        retention_s = settings.job_retention_s
        self._store = VectorStore(db, dtype=settings.vector_dtype)
        self._jobs = JobStore(db, window_s=settings.job_window_s, retention_s=retention_s)
        self._chunks = ChunkStore(db, retention_s=retention_s)
        self._sweeper = Sweeper(
            db,
            retention_s=retention_s,
            max_attempts=settings.max_attempts,
            lookup=self._store.lookup_on,
            every_s=BEAT_S,
        )
        self._catalog = Catalog(db, default_model=settings.default_model)
        self._roster = Roster(self._redis)
        self._claims = RedisClaims(self._redis, ttl_s=settings.claim_ttl_s, owner=self._id)
        self._failover = Failover(
            self._jobs,
            JobMoves(db),
            self._roster,
            use_case=settings.use_case,
            fail_after_s=settings.no_worker_s,
        )

    def _open_device(self) -> None:
        """Create the engine of the device, its models and the metrics."""
        settings, self._metrics = self._settings, WorkerMetrics(self._device)
        self._engine = Engine(
            max_batch_tokens=settings.max_batch_tokens, observe=self._metrics.observe, on_batch=self._metrics.batch
        )
        self._models = LoadedModels(settings, self._engine, device=self._device)
        self._metrics.watch(self._engine, self._models, self._claims, self._store)
        self._hang = HangWatch(
            self._engine, self._loss, device=self._device, after_s=settings.hung_after_s, last_words=self._last_words
        )

    def _open_work(self) -> None:
        """Create the parts that run the chunks and requests from the queues."""
        settings = self._settings
        self._app = make_app(settings.redis_url, device=self._device, events=settings.task_events)
        dispatcher = Dispatcher(self._chunks, self._app, self._roster)
        self._queues = QueueCare(
            self._redis,
            self._sweeper,
            dispatcher,
            self._roster,
            self._claims,
            device=self._device,
            on_swept=self._metrics.count_swept,
        )
        embedder = Embedder(self._engine, self._store, self._claims, observe=self._metrics.observe)
        self._runner = ChunkRunner(
            self._jobs,
            self._chunks,
            self._store,
            embedder,
            self._models,
            owner=self._id,
            lease_s=settings.lease_s,
            max_attempts=settings.max_attempts,
            window=lambda: dispatcher.window(Lane.BULK, device_kind(self._device)),
            send=dispatcher.send,
            refuse=self._refuse,
            record=self._record,
        )
        pass_on = PassOn(self._app, self._redis, self._failover, self._id, self._device, settings.use_case)
        self._held = HeldRequests(self._redis, worker_id=self._id)
        self._replies = Replies(
            self._redis,
            self._models,
            embedder,
            self._loss,
            self._held,
            pass_on,
            refuse=self._refuse,
            record=self._record,
        )

    def _open_presence(self) -> None:
        """Create the part that publishes this worker on the roster."""
        self._presence = Presence(
            self._roster,
            self._offers,
            self._models,
            self._engine,
            self._meter,
            worker_id=self._id,
            about=describe(self._device),
            measured=Measurements(self._settings.measurements).read().get(self._device),
            rates=KeptRates(self._settings.rates, self._device),
            progress=self._runner.progress,
            held=self._held,
        )

    def run(self) -> None:
        """Verify the device, publish and load the models, then work until SIGTERM or SIGINT.

        Raises:
            ModelLoadError: none of the configured models can be served here.
            FingerprintError: a live worker serves other weights under the same name.
            BackendError: the device computes wrong results or was lost; a supervisor should restart this process.
            UnavailableError: the metrics port cannot be used.
        """
        if self._settings.metrics_port:
            self._metrics.serve(self._settings.metrics_host, self._settings.metrics_port)
        try:
            with self._presence.beating():
                if not self._models.all_fake:
                    verify(self._device)
                self._serve()
        except (BackendError, ModelLoadError) as error:
            self._presence.report_failed(error)
            raise

    def _serve(self) -> None:
        self._offers.serve(self._models.available(self._models.entries))
        if not self._offers.models:
            raise ModelLoadError("no configured model can be served here; see the reasons above, or run 'semel models'")
        self._catalog.publish(self._offers.spaces, device=self._device)
        duties = self._duties()
        for duty in duties:
            duty.start()
        try:
            default = self._models.full_name(self._settings.default_model)
            if self._settings.preload and default in self._offers.models:
                self._preload(default)
            self._presence.state = "ready"
            self._presence.forget_failed()
            log.info("worker ready", id=self._id, models=", ".join(self._offers.models))
            consume(
                self._app,
                worker_id=self._id,
                embed_chunks=self.embed_chunks,
                replies=self._replies,
                redelivered=self._metrics.redelivered,
            )
        finally:
            for duty in duties:
                duty.stop()
            self._catalog.retire(self._offers.spaces)
            self._presence.sign_off()
            self._engine.close()
        if self._loss.error is not None:
            raise self._loss.error

    def _duties(self) -> list[Repeating]:
        """What a worker does in addition to computing. Each has a thread: leases must not wait for a slow sweep."""
        return [
            Repeating("watch device", self._hang.look, every_s=BEAT_S, at_once=True),
            Repeating("renew leases", self._renew_leases, every_s=BEAT_S, at_once=True),
            Repeating("requests", self._held.look, every_s=LOOK_S),
            Repeating("renew claims", self._claims.renew, every_s=BEAT_S, at_once=True),
            Repeating("publish models", lambda: self._catalog.touch(self._offers.spaces), every_s=TOUCH_S),
            Repeating("queues", self._queues.once, every_s=BEAT_S, at_once=True),
            Repeating("owner of Redis", self._redis_owner.renew, every_s=RENEW_S),
            Repeating("failover", self._failover.run, every_s=BEAT_S, at_once=True),
        ]

    def _renew_leases(self) -> None:
        in_hand = self._runner.in_hand()
        kept = self._chunks.renew(in_hand, owner=self._id, ttl_s=self._settings.lease_s)
        self._runner.lost(set(in_hand) - kept)

    def _record(self, message: Message) -> None:
        self._meter.record(message)
        self._metrics.observe("queue", message.queued_s)
        self._metrics.message(message.model, message.outcomes)

    def _preload(self, name: str) -> None:
        """Load the default model. Raises ModelLoadError if it fails and there is no other model."""
        try:
            self._models.get(name)
        except FingerprintError:
            raise
        except ModelLoadError as error:
            if len(self._offers.models) == 1:
                raise
            log.error("default model not served here", model=name, reason=str(error))
            self._refuse(name, self._offers.space(name).fingerprint, str(error))

    def _refuse(self, name: str, fingerprint: bytes, why: str) -> bool:
        """Stop offering a model that cannot be used; returns whether another worker has its jobs now."""
        self._offers.withdraw(name, fingerprint)
        try:
            self._presence.beat()
            return self._failover.leave(self._device, self._id, name, fingerprint, why=why)
        except (redis.RedisError, UnavailableError) as error:
            log.warning("jobs not handed over to another worker", reason=str(error))
            return False

    def _last_words(self, error: BackendError) -> None:
        self._requeue_unaffected_chunks()
        self._presence.report_failed(error)

    def _requeue_unaffected_chunks(self) -> None:
        """Return the chunks that have no text in the hanging batch."""
        suspects = {place for label in self._engine.in_hand() if isinstance(label, frozenset) for place in label}
        unaffected = [place for place in self._runner.in_hand() if place not in suspects]
        try:
            self._chunks.give_back_uncharged(unaffected, owner=self._id)
        except SemelError as error:
            log.warning("chunks not returned, their leases expire instead", reason=str(error))

    def embed_chunks(self, places: Sequence[Place]) -> None:
        """Run the chunks of one message."""
        annotate(job=places[0][0], chunk=places[0][1], chunks=len(places))
        try:
            self._runner.run(places)
        except BackendError as error:
            self._loss.stop_worker(error)
        except (StorageFullError, UnavailableError) as error:  # the database's, while the chunks were leased or ended
            log.warning("chunks not run, the next sweep sends them again", chunks=len(places), reason=str(error))
