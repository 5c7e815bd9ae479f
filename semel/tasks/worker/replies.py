"""Answers to small requests, from the worker that receives them or from another one that can serve them."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace

import redis
from celery import Celery
from kombu.exceptions import OperationalError

from semel.cache.keys import input_keys
from semel.errors import BackendError, ModelLoadError, SemelError, UnavailableError, UnknownModelError
from semel.log import get_log
from semel.tasks.fleet.failover import Failover
from semel.tasks.fleet.meter import Message
from semel.tasks.fleet.pools import best_pool
from semel.tasks.queue.doorbell import ring
from semel.tasks.queue.message import Answer, Request
from semel.tasks.queue.names import EMBED_TEXTS, READ_TEXTS, queue_name
from semel.tasks.worker.device_loss import DeviceLoss
from semel.tasks.worker.embed import Embedder, LoadedModel
from semel.tasks.worker.models import LoadedModels
from semel.tracing import annotate, span
from semel.values.device import UseCase, device_kind
from semel.values.model import Space
from semel.values.text import ItemError, Lane, Outcome

log = get_log("worker")

_MAX_PASSES, _PASS_S = 20, 0.05
"""How often a request is passed from worker to worker, with this pause, before it is answered with the error."""

_PASSES_HERE = 4
"""After this many passes the request avoids its own queue: the worker expected there may already be dead."""

_MAX_KILLS = 2
"""A request whose texts may have killed this many devices is not passed on again."""


@dataclass(frozen=True)
class PassOn:
    """Passes requests on to another worker that serves their vector space.

    Attributes:
        worker_id, device: id and device of this worker.
        use_case: selects the order in which pools are preferred.
    """

    app: Celery
    failover: Failover
    worker_id: str
    device: str
    use_case: UseCase

    def __call__(self, task: str, request: Request) -> bool:
        """Send the request to another worker; returns False when none can take it."""
        try:
            others = self.failover.others(self.worker_id, request.model, bytes.fromhex(request.fingerprint))
            if not others or request.passed_on >= _MAX_PASSES:
                return False
            if request.passed_on >= _PASSES_HERE:
                here = device_kind(self.device)
                others = [card for card in others if device_kind(card.device) != here] or others
            time.sleep(_PASS_S)  # gives another worker of the same queue the time to take it
            device, _ = best_pool(others, model=request.model, use_case=self.use_case)
            message = replace(request, passed_on=request.passed_on + 1).to_message()
            queue = queue_name(Lane.INTERACTIVE, device)
            with span("semel.send"):
                self.app.send_task(task, args=[message], queue=queue, ignore_result=True, argsrepr=request.shown)
        except (UnavailableError, OperationalError) as error:
            log.warning("request not passed on", request=request.id, reason=str(error))
            return False
        return True


class Replies:
    """Answers small requests.

    Args:
        pass_on: called with the task and the request when this worker cannot serve it.
        refuse: called with a model, its fingerprint and the reason when the model cannot be used here.
        record: called with the `Message` of each answered request.
    """

    def __init__(
        self,
        client: "redis.Redis",
        models: LoadedModels,
        embedder: Embedder,
        loss: DeviceLoss,
        pass_on: PassOn,
        *,
        refuse: Callable[[str, bytes, str], bool],
        record: Callable[[Message], None],
    ) -> None:
        self._client = client
        self._models = models
        self._embedder = embedder
        self._loss = loss
        self._pass_on = pass_on
        self._refuse = refuse
        self._record = record

    def embed(self, request: Request) -> None:
        """Compute the missing texts of a request, and answer it."""
        self._reply(EMBED_TEXTS, request, self._embed)

    def read(self, request: Request) -> None:
        """Answer how the model tokenises the texts; computes no vectors."""
        self._reply(READ_TEXTS, request, self._read)

    def _reply(self, task: str, request: Request, answer_to: Callable[[Request], Answer]) -> None:
        """Send the answer, whatever it is, unless the request was passed on to another worker."""
        annotate(request=request.id, model=request.model, texts=len(request.texts))
        answer = self._answer(task, request, answer_to)
        if answer is None:
            return
        try:
            ring(self._client, request_id=request.id, reply_to=request.reply_to, answer=answer)
        except redis.RedisError as error:
            log.warning("answer not delivered, the request will be sent again", request=request.id, reason=str(error))

    def _answer(self, task: str, request: Request, answer_to: Callable[[Request], Answer]) -> Answer | None:
        """The answer; None when the request was passed on."""
        try:
            return answer_to(request)
        except BackendError as error:
            self._loss.stop_worker(error)
            passed = request.passed_on < _MAX_KILLS and self._pass_on(task, request)
            return None if passed else Answer(error=ItemError.of(error))
        except (ModelLoadError, UnknownModelError) as error:
            self._refuse(request.model, bytes.fromhex(request.fingerprint), str(error))
            return None if self._pass_on(task, request) else Answer(error=ItemError.of(error))
        except SemelError as error:
            return Answer(error=ItemError.of(error))
        except Exception as error:  # the worker's edge: the caller gets the reason instead of a time-out
            log.exception("request failed", request=request.id)
            return Answer(error=ItemError("internal_error", f"{type(error).__name__}: {error}"))

    @contextmanager
    def _model_of(self, request: Request) -> Iterator[tuple[LoadedModel, Space]]:
        with self._models.using(request.model) as model:
            space = model.spaces.get(request.prompt_name)
            if space is None or space.fingerprint.hex() != request.fingerprint:
                raise ModelLoadError(
                    f"the model {request.model!r} has other weights on this worker than the request expects; try again"
                )
            yield model, space

    def _read(self, request: Request) -> Answer:
        with self._model_of(request) as (model, _):
            texts = [str(text) for text in request.texts]
            prompt = model.prompts[request.prompt_name]
            if request.reading == "count":
                tokens = model.backend.tokenize(texts, prompt=prompt)
                return Answer(readings=[[len(read.ids), read.truncated] for read in tokens])
            special = request.reading != "bare"
            spelled = [model.backend.spell(prompt + text, special=special) for text in texts]
            return Answer(readings=[[asdict(token) for token in tokens] for tokens in spelled])

    def _embed(self, request: Request) -> Answer:
        started_at, started = time.time(), time.perf_counter()
        with self._model_of(request) as (model, space):
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
