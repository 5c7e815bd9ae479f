"""A worker: one process, one device, consuming that device's queues with Celery's threads pool."""

import faulthandler
import os
import signal
import socket
import threading
import time
import uuid
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Any

import redis
from celery import Celery
from celery.signals import setup_logging, task_prerun
from kombu.exceptions import OperationalError

from semel.backends.devices.find import describe
from semel.backends.devices.select import Measurements
from semel.backends.devices.usage import usage_of
from semel.backends.devices.verify import verify
from semel.backends.engine import Engine
from semel.cache.catalog import Catalog
from semel.cache.claims import RedisClaims
from semel.cache.keys import input_keys
from semel.cache.store import VectorStore
from semel.db import Database
from semel.errors import BackendError, FingerprintError, ModelLoadError, SemelError, UnavailableError, UnknownModelError
from semel.log import get_log
from semel.settings import Settings
from semel.tasks.fleet.failover import Failover
from semel.tasks.fleet.meter import Message, Meter
from semel.tasks.fleet.pools import best_pool
from semel.tasks.fleet.roster import Roster, WorkerCard, connect_redis, unreachable
from semel.tasks.jobs.store import JobStore
from semel.tasks.queue.app import make_app
from semel.tasks.queue.dispatch import Dispatcher
from semel.tasks.queue.doorbell import Answer, ring
from semel.tasks.queue.names import EMBED_CHUNK, EMBED_TEXTS, READ_TEXTS, queue_name
from semel.tasks.queue.sender import Request
from semel.tasks.worker.chunk import ChunkRunner
from semel.tasks.worker.duties import Maintenance
from semel.tasks.worker.embed import Embedder, LoadedModel
from semel.tasks.worker.metrics import WorkerMetrics
from semel.tasks.worker.models import LoadedModels
from semel.tracing import span, tell
from semel.values import ItemError, Lane, Outcome, Space, device_kind

log = get_log("worker")

_HUNG_FACTOR = 20.0
"""A batch that takes this many times the usual is not slow, it is stuck."""

_LAST_WORDS_S = 5.0

_MOST_PASSES, _PASS_S = 20, 0.05
"""A request goes from worker to worker this often, with such a pause, before it is answered with the error."""

_PASSES_HERE = 4
"""So often it goes back into the same queue: who should take it from there may be dead, and not known to be."""

_MOST_KILLS = 2
"""A request whose texts may have killed so many devices is given to no further one."""

_REFUSED_S = 300.0
"""A model that could not be loaded is offered again after this: memory may be free by then."""

_HUNG_EXIT = 70
"""EX_SOFTWARE of sysexits.h."""


class Worker:
    """Everything that a worker process holds.

    Args:
        device: `cpu`, `cuda:0`, … as `semel devices` names them.

    Raises:
        UnavailableError: the database or Redis does not answer.
    """

    def __init__(self, settings: Settings, *, device: str) -> None:
        self._settings = settings
        self._device = device
        self._id = f"{device}@{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:6]}"
        self._started_at = time.time()
        self._state = "loading"
        self._device_lost: BackendError | None = None
        self._redis = connect_redis(settings.redis_url)
        try:
            self._redis.ping()
        except redis.RedisError as error:
            raise unreachable(error) from error
        self._db = Database(settings.database, max_bytes=settings.database_max_bytes)
        self._db.upgrade()
        self._store = VectorStore(self._db, dtype=settings.vector_dtype)
        self._jobs = JobStore(self._db, window_s=settings.job_window_s, retention_s=settings.job_retention_s)
        self._catalog = Catalog(self._db, default_model=settings.default_model)
        self._roster = Roster(self._redis)
        self._claims = RedisClaims(self._redis, ttl_s=settings.claim_ttl_s)
        self._meter = Meter()
        self._served: dict[str, dict[str, Space]] = {}
        self._refused: dict[str, tuple[float, dict[str, Space]]] = {}
        self._about = describe(device)
        self._measured = Measurements(settings.measurements).read().get(device)
        self._metrics = WorkerMetrics(device)
        self._engine = Engine(
            max_batch_tokens=settings.max_batch_tokens, observe=self._metrics.observe, on_batch=self._metrics.batch
        )
        self._models = LoadedModels(settings, self._engine, device=device)
        self._metrics.watch(self._engine, self._models, self._claims, self._store)
        self._embedder = Embedder(self._engine, self._store, self._claims, observe=self._metrics.observe)
        self._app = make_app(settings.redis_url, device=device, events=settings.task_events)
        self._dispatcher = Dispatcher(self._jobs, self._app, self._roster)
        self._failover = Failover(
            self._db, self._jobs, self._roster, use_case=settings.use_case, fail_after_s=settings.no_worker_s
        )
        self._runner = ChunkRunner(
            self._jobs,
            self._store,
            self._embedder,
            self._models,
            owner=self._id,
            lease_s=settings.lease_s,
            max_attempts=settings.max_attempts,
            refuse=self._refuse,
            record=self._record,
        )

    def run(self) -> None:
        """Verify the device, publish, load, work until SIGTERM or SIGINT.

        Raises:
            ModelLoadError: none of the configured models can be served here.
            FingerprintError: a live worker serves other weights under the same name.
            BackendError: the device is not fit, or was lost; a supervisor should start this process again.
        """
        if self._settings.metrics_port:
            self._metrics.serve(self._settings.metrics_host, self._settings.metrics_port)
        try:
            if not self._models.all_fake:
                verify(self._device)
            self._serve()
        except (BackendError, ModelLoadError) as error:
            self._report_failed(error)
            raise

    def _serve(self) -> None:
        self._served = self._models.available(self._models.entries)
        if not self._served:
            raise ModelLoadError("no configured model can be served here; see the reasons above, or 'semel models'")
        self._catalog.publish(self._spaces(), device=self._device)
        maintenance = Maintenance(
            self._redis,
            self._jobs,
            self._dispatcher,
            self._roster,
            self._catalog,
            self._claims,
            self._failover,
            worker_id=self._id,
            device=self._device,
            card=self._card,
            in_hand=self._runner.in_hand,
            watch_device=self._watch_device,
            on_swept=self._metrics.resent.count,
            spaces=self._spaces,
            lease_s=self._settings.lease_s,
            max_attempts=self._settings.max_attempts,
        )
        maintenance.start()
        try:
            default = self._models.full_name(self._settings.default_model)
            if self._settings.preload and default in self._served:
                self._preload(default)
            self._state = "ready"
            self._forget_failed()
            log.info("worker ready", id=self._id, models=", ".join(self._served))
            self._consume()
        finally:
            maintenance.stop()
            self._catalog.retire(self._spaces())
            self._sign_off()
            self._engine.close()
        if self._device_lost is not None:
            raise self._device_lost

    def _record(self, message: Message) -> None:
        self._meter.record(message)
        self._metrics.observe("queue", message.queued_s)
        self._metrics.message(message.model, message.outcomes)

    def _preload(self, name: str) -> None:
        """Raises ModelLoadError when it was the only model."""
        try:
            self._models.get(name)
        except FingerprintError:
            raise
        except ModelLoadError as error:
            if len(self._served) == 1:
                raise
            log.error("default model not served here", model=name, reason=str(error))
            self._refuse(name, self._served[name][""].fingerprint, str(error))

    def _spaces(self) -> list[Space]:
        """What it serves now."""
        return [space for by_prompt in self._served.values() for space in by_prompt.values()]

    def _refuse(self, name: str, fingerprint: bytes, why: str) -> bool:
        """A model cannot be loaded here: do not offer it for a while; whether somebody else has its jobs now."""
        served = dict(self._served)
        if any(space.fingerprint == fingerprint for space in served.get(name, {}).values()):
            self._refused[name] = (time.monotonic(), served.pop(name))
            self._served = served  # another dictionary: others are walking through the old one
        try:
            self._roster.beat(self._card())
            return self._failover.leave(self._device, self._id, name, fingerprint, why=why)
        except (redis.RedisError, UnavailableError) as error:
            log.warning("failover not possible now", reason=str(error))
            return False

    def _offer_again(self) -> None:
        """What could not be loaded may fit by now."""
        for name, (at, spaces) in list(self._refused.items()):
            if time.monotonic() - at > _REFUSED_S:
                del self._refused[name]
                self._served = {**self._served, name: spaces}

    def _watch_device(self) -> None:
        """End this process when the device hangs: nothing in it can be trusted, or even stopped, any more."""
        self._offer_again()
        in_hand_s = self._engine.hangs(after_s=self._settings.hung_after_s, factor=_HUNG_FACTOR)
        if in_hand_s is None:
            return
        error = BackendError(f"{self._device} hangs: a batch has not ended for {in_hand_s:.0f} s")
        log.error("the device hangs, this worker ends; its threads follow", reason=str(error))
        faulthandler.dump_traceback(all_threads=True)
        # What follows asks the database, Redis and the device, and may hang, too.
        last_resort = threading.Timer(_LAST_WORDS_S, os._exit, (_HUNG_EXIT,))
        last_resort.daemon = True
        last_resort.start()
        self._give_back_the_innocent()
        self._report_failed(error)
        os._exit(_HUNG_EXIT)

    def _give_back_the_innocent(self) -> None:
        """Chunks that have no text in the batch that hangs are not to blame."""
        suspects = self._engine.in_hand()
        innocent = [place for place in self._runner.in_hand() if place not in suspects]
        try:
            self._jobs.give_back_uncharged(innocent, owner=self._id)
        except SemelError as error:
            log.warning("chunks not given back, their leases end", reason=str(error))

    def _report_failed(self, error: SemelError) -> None:
        try:
            self._roster.report_failed(replace(self._card(), state="failed", why=str(error)))
        except redis.RedisError as lost:
            log.warning("failure not reported", reason=str(lost))

    def _forget_failed(self) -> None:
        try:
            self._roster.forget_failed(self._card())
        except redis.RedisError as error:
            log.warning("an earlier failure stays reported", reason=str(error))

    def _card(self) -> WorkerCard:
        stats = self._engine.stats
        loaded = self._models.loaded()
        usage = usage_of(self._device)
        return WorkerCard(
            id=self._id,
            device=self._device,
            host=socket.gethostname(),
            pid=os.getpid(),
            started_at=self._started_at,
            state=self._state,
            dtype=loaded[0].producer.dtype if loaded else "",
            why=loaded[0].backend.get_model_info().why if loaded else "",
            about=self._about.why,
            software=self._about.software,
            models=list(self._served),
            spaces=[space.fingerprint.hex() for space in self._spaces()],
            loaded=[next(iter(model.spaces.values())).model for model in loaded],
            load_s=round(sum(model.load_s for model in loaded), 2),
            memory_bytes=usage.memory_bytes,
            gpu_utilization=usage.gpu_utilization,
            texts_per_s=round(stats.texts / stats.busy_s, 1) if stats.busy_s else 0.0,
            memory_halvings=stats.memory_halvings,
            progress=self._runner.progress(),
            measured=self._measured,
            work=self._meter.work(computed=stats.texts, tokens=stats.tokens, padded_tokens=stats.padded_tokens),
        )

    def _sign_off(self) -> None:
        try:
            self._roster.leave(self._id)
        except redis.RedisError as error:
            log.warning("not signed off, the roster forgets this worker by itself", reason=str(error))

    def _consume(self) -> None:
        """Celery's loop, until a signal."""
        _register(self._app, self)
        setup_logging.connect(_keep_our_logging, weak=False)
        task_prerun.connect(self._count_redelivery, weak=False)
        warnings.filterwarnings("ignore", message=".*superuser privileges.*")  # containers run as root
        consumer = self._app.Worker(
            hostname=self._id, quiet=True, without_gossip=True, without_mingle=True, loglevel="WARNING"
        )
        consumer.start()
        if consumer.exitcode:
            raise UnavailableError("Celery's loop ended with an error, which the log tells; start this worker again")

    def _count_redelivery(self, task: Any, **_: Any) -> None:
        if (task.request.delivery_info or {}).get("redelivered"):
            self._metrics.redelivered()

    def embed_chunk(self, job_id: str, position: int) -> None:
        """The task for a chunk; then the next chunks are sent."""
        tell(job=job_id, chunk=position)
        try:
            self._runner.run(job_id, position)
        except BackendError as error:
            self._stop_for(error)
            return
        for lane in Lane:
            self._dispatcher.top_up(lane, device_kind(self._device))

    def embed_texts(self, request: Request) -> None:
        """The task for a small request."""
        self._ring(EMBED_TEXTS, request, self._answer)

    def read_texts(self, request: Request) -> None:
        """The task that tells how a model reads texts."""
        self._ring(READ_TEXTS, request, self._readings)

    def _ring(self, task: str, request: Request, answer_to: Callable[[Request], Answer]) -> None:
        """Answer a request, whatever happens, unless another worker is to do that."""
        tell(request=request.id, model=request.model, texts=len(request.texts))
        try:
            answer = answer_to(request)
        except BackendError as error:
            answer = Answer(error=ItemError.of(error))
            self._stop_for(error)
            if request.passed_on < _MOST_KILLS and self._pass_on(task, request):
                return
        except (ModelLoadError, UnknownModelError) as error:
            self._refuse(request.model, bytes.fromhex(request.fingerprint), str(error))
            answer = Answer(error=ItemError.of(error))
            if self._pass_on(task, request):
                return
        except SemelError as error:
            answer = Answer(error=ItemError.of(error))
        except Exception as error:  # the worker's edge: the waiter gets the reason instead of a time-out
            log.exception("request failed", request=request.id)
            answer = Answer(error=ItemError("internal_error", f"{type(error).__name__}: {error}"))
        try:
            ring(self._redis, request_id=request.id, reply_to=request.reply_to, answer=answer)
        except redis.RedisError as error:
            log.warning("answer not delivered, its waiter asks again", request=request.id, reason=str(error))

    def _pass_on(self, task: str, request: Request) -> bool:
        """Give a request to another worker that serves its space; False when there is none."""
        try:
            others = self._failover.others(self._id, request.model, bytes.fromhex(request.fingerprint))
            if not others or request.passed_on >= _MOST_PASSES:
                return False
            if request.passed_on >= _PASSES_HERE:
                here = device_kind(self._device)
                others = [card for card in others if device_kind(card.device) != here] or others
            time.sleep(_PASS_S)  # in the same queue somebody else should take it
            device, _ = best_pool(others, model=request.model, use_case=self._settings.use_case)
            message = replace(request, passed_on=request.passed_on + 1).to_message()
            queue = queue_name(Lane.INTERACTIVE, device)
            with span("semel.send"):
                self._app.send_task(task, args=[message], queue=queue, ignore_result=True, argsrepr=request.shown)
        except (UnavailableError, OperationalError) as error:
            log.warning("request not passed on", request=request.id, reason=str(error))
            return False
        return True

    @contextmanager
    def _asked_for(self, request: Request) -> Iterator[tuple[LoadedModel, Space]]:
        with self._models.using(request.model) as model:
            yield model, self._space_of(request, model)

    def _space_of(self, request: Request, model: LoadedModel) -> Space:
        space = model.spaces.get(request.prompt_name)
        if space is None or space.fingerprint.hex() != request.fingerprint:
            raise ModelLoadError(
                f"the model {request.model!r} of this worker is not the one that was asked for; ask again"
            )
        return space

    def _readings(self, request: Request) -> Answer:
        with self._asked_for(request) as (model, _):
            texts = [str(text) for text in request.texts]
            prompt = model.prompts[request.prompt_name]
            if request.reading == "count":
                tokens = model.backend.tokenize(texts, prompt=prompt)
                return Answer(readings=[[len(read.ids), read.truncated] for read in tokens])
            special = request.reading != "bare"
            spelled = [model.backend.spell(prompt + text, special=special) for text in texts]
            return Answer(readings=[[asdict(token) for token in tokens] for tokens in spelled])

    def _answer(self, request: Request) -> Answer:
        started_at, started = time.time(), time.perf_counter()
        with self._asked_for(request) as (model, space):
            keys = input_keys(space.fingerprint, request.texts)
            missing = dict(zip(keys, request.texts, strict=True))
            done = self._embedder.compute(model, request.prompt_name, missing, lane=Lane.INTERACTIVE)
        seconds = time.perf_counter() - started
        by_outcome: dict[Outcome, list[int]] = {outcome: [] for outcome in Outcome}
        for i, key in enumerate(keys):
            by_outcome[done.outcomes[key]].append(i)
        counts = {outcome: len(positions) for outcome, positions in by_outcome.items() if positions}
        self._record(Message(space.model, request.sent_at, started_at, counts))
        return Answer(
            computed=by_outcome[Outcome.COMPUTED],
            coalesced=by_outcome[Outcome.COALESCED],
            errors={i: done.errors[keys[i]] for i in by_outcome[Outcome.FAILED]},
            seconds=seconds,
        )

    def _stop_for(self, error: BackendError) -> None:
        """A lost device ends the process: its chunks go elsewhere, and a fresh process may find the device well."""
        if self._device_lost is None:
            self._device_lost = error
            log.error("the device is lost, this worker stops", reason=str(error))
            threading.Thread(target=os.kill, args=(os.getpid(), signal.SIGTERM)).start()


def _register(app: Celery, worker: Worker) -> None:
    @app.task(name=EMBED_CHUNK)
    def embed_chunk(job_id: str, position: int) -> None:
        worker.embed_chunk(job_id, position)

    @app.task(name=EMBED_TEXTS)
    def embed_texts(message: dict[str, Any]) -> None:
        worker.embed_texts(Request.from_message(message))

    @app.task(name=READ_TEXTS)
    def read_texts(message: dict[str, Any]) -> None:
        worker.read_texts(Request.from_message(message))


def _keep_our_logging(**_: Any) -> None:
    """Receiving this signal keeps Celery from configuring the log."""
