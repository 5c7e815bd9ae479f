"""Answers to requests. Those that share a message are computed together, and each is answered when it is done."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace

import redis

from semel.cache.keys import input_keys
from semel.errors import BackendError, ModelLoadError, SemelError, UnknownModelError
from semel.log import get_log
from semel.tasks.fleet.meter import Message
from semel.tasks.queue.doorbell import ring
from semel.tasks.queue.message import Answer, Request, RequestMessage, Row
from semel.tasks.queue.names import EMBED_TEXTS, READ_TEXTS
from semel.tasks.worker.device_loss import DeviceLoss
from semel.tasks.worker.embed import CancelledError, Embedder, LoadedModel, Terms
from semel.tasks.worker.held import HeldRequests
from semel.tasks.worker.models import LoadedModels
from semel.tasks.worker.pass_on import PassOn
from semel.tracing import annotate
from semel.values.model import Space
from semel.values.text import Input, ItemError, Lane, Outcome
from semel.values.variant import Variant
from semel.values.vectors import Computed

log = get_log("worker")

_MOST_BYTES = 16 << 10
"""The vectors of a request that travel with its answer; those of a larger one are read from the cache."""


class Replies:
    """Answers requests.

    Args:
        held: the requests that this worker has taken.
        pass_on: called when this worker cannot serve a message.
        refuse: called with a model, its fingerprint and the reason when the model cannot be used here.
        record: called with the `Message` of each answered request.
    """

    def __init__(
        self,
        client: "redis.Redis",
        models: LoadedModels,
        embedder: Embedder,
        loss: DeviceLoss,
        held: HeldRequests,
        pass_on: PassOn,
        *,
        refuse: Callable[[str, bytes, str], bool],
        record: Callable[[Message], None],
    ) -> None:
        self._client = client
        self._models = models
        self._embedder = embedder
        self._loss = loss
        self._held = held
        self._pass_on = pass_on
        self._refuse = refuse
        self._record = record
        self._one_suspect = threading.Lock()

    def embed(self, message: RequestMessage) -> None:
        """Compute the missing texts of the requests in a message, and answer them."""
        self._reply(EMBED_TEXTS, message, self._embed)

    def read(self, message: RequestMessage) -> None:
        """Answer how the model tokenises the texts; computes no vectors."""
        self._reply(READ_TEXTS, message, self._read)

    def _reply(self, task: str, message: RequestMessage, serve: Callable[[RequestMessage, "_Open"], None]) -> None:
        """Answer every request of a message that this worker is to answer, or pass it on to another worker.

        Requests that may have killed a worker are taken one by one: those that wait must not die with another one.
        """
        fresh = [request for request in message.requests if not request.deaths]
        if fresh:
            self._reply_to(task, replace(message, requests=fresh), serve)
        for suspect in (request for request in message.requests if request.deaths):
            with self._one_suspect:
                self._reply_to(task, replace(message, requests=[suspect]), serve)

    def _reply_to(self, task: str, message: RequestMessage, serve: Callable[[RequestMessage, "_Open"], None]) -> None:
        taken = self._held.take(message.requests)
        if not taken:
            return
        message = replace(message, requests=taken)
        annotate(request=taken[0].id, requests=len(taken), model=message.model)
        answers = _Open(self._client, self._held, message)
        try:
            self._serve(task, message, answers, serve)
        finally:
            self._held.put_down(taken)

    def _serve(
        self, task: str, message: RequestMessage, answers: "_Open", serve: Callable[[RequestMessage, "_Open"], None]
    ) -> None:
        try:
            serve(message, answers)
        except CancelledError:
            log.debug("nobody waits for these requests any more", requests=len(answers.open))
        except BackendError as error:
            self._loss.stop_worker(error)
            answers.fail(self._pass_on.after_death(task, answers.rest()), error)
        except (ModelLoadError, UnknownModelError) as error:
            self._refuse(message.model, bytes.fromhex(message.fingerprint), str(error))
            if not self._pass_on(task, answers.rest()):
                answers.fail(answers.open, error)
        except Exception as error:  # the worker's edge: the callers get the reason instead of a time-out
            if len(answers.open) > 1:  # one of them may be at fault
                for request in answers.open:
                    alone = replace(message, requests=[request])
                    self._serve(task, alone, _Open(self._client, self._held, alone), serve)
                return
            if not isinstance(error, SemelError):
                log.exception("request failed", request=message.requests[0].id)
                error = SemelError(f"{type(error).__name__}: {error}")
            answers.fail(answers.open, error)

    @contextmanager
    def _model_of(self, message: RequestMessage) -> Iterator[tuple[LoadedModel, Space]]:
        with self._models.using(message.model) as model:
            space = model.spaces.get(message.prompt_name)
            if space is None or space.fingerprint.hex() != message.fingerprint:
                raise ModelLoadError(
                    f"the model {message.model!r} has other weights on this worker than the request expects; try again"
                )
            yield model, space.with_variant(Variant.from_json(message.variant)).within(message.namespace)

    def _read(self, message: RequestMessage, answers: "_Open") -> None:
        with self._model_of(message) as (model, space):
            for request in message.requests:
                answers.give({request.id: _readings(model, space, message, request)})

    def _embed(self, message: RequestMessage, answers: "_Open") -> None:
        started_at, started = time.time(), time.perf_counter()
        with self._model_of(message) as (model, space):
            keys = {request.id: input_keys(space.key_base, request.texts) for request in message.requests}
            missing: dict[bytes, Input] = {}
            waiting: dict[bytes, list[Request]] = {}
            for request in message.requests:
                for key, text in zip(keys[request.id], request.texts, strict=True):
                    missing[key] = text
                    waiting.setdefault(key, []).append(request)

            def answer(done: Computed) -> None:
                ready = [each for each in answers.open if all(key in done.outcomes for key in keys[each.id])]
                seconds = time.perf_counter() - started
                answers.give({each.id: _answer(keys[each.id], done, seconds) for each in ready})
                for each in ready:
                    self._record_request(space.model, each, keys[each.id], done, started_at)

            terms = Terms(
                still_wanted=answers.wanted,
                wants=lambda key: any(self._held.wants(request) for request in waiting[key]),
                settled=answer,
                keep_vectors=True,
                alone=message.requests[0].deaths > 0,
            )
            self._embedder.compute(
                model, message.prompt_name, missing, lane=Lane.INTERACTIVE, variant=space.variant, terms=terms
            )

    def _record_request(
        self, model: str, request: Request, keys: list[bytes], done: Computed, started_at: float
    ) -> None:
        outcomes = [done.outcomes[key] for key in keys]
        counts = {outcome: outcomes.count(outcome) for outcome in set(outcomes)}
        self._record(Message(model, request.sent_at, started_at, counts))


class _Open:
    """The requests of a message that have no answer yet."""

    def __init__(self, client: "redis.Redis", held: HeldRequests, message: RequestMessage) -> None:
        self._client = client
        self._held = held
        self._message = message
        self.open = list(message.requests)

    def wanted(self) -> bool:
        """Whether somebody still waits for one of them; also True when all are answered."""
        return not self.open or any(self._held.wants(request) for request in self.open)

    def rest(self) -> RequestMessage:
        """The message with only those requests."""
        return replace(self._message, requests=[each for each in self.open if self._held.wants(each)])

    def give(self, answers: Mapping[str, Answer]) -> None:
        """Answer requests by their ids, all in one round trip."""
        given = [request for request in self.open if request.id in answers]
        self.open = [request for request in self.open if request.id not in answers]
        wanted = {request.id: answers[request.id] for request in given if self._held.wants(request)}
        try:
            if wanted:
                ring(self._client, reply_to=self._message.reply_to, answers=wanted)
        except redis.RedisError as error:
            log.warning("answers not delivered, they are delivered later", reason=str(error))
            self._held.deliver_later(self._message.reply_to, wanted)

    def fail(self, requests: Sequence[Request], error: SemelError) -> None:
        """Answer requests with an error."""
        self.give({request.id: Answer(error=ItemError.of(error)) for request in requests})


def _answer(keys: list[bytes], done: Computed, seconds: float) -> Answer:
    vectors = {i: done.vectors[key] for i, key in enumerate(keys) if key in done.vectors}
    if sum(vector.nbytes for vector in vectors.values()) > _MOST_BYTES:
        vectors = {}
    return Answer(
        rows={
            i: Row(vector.astype("<f4").tobytes(), done.tokens[keys[i]], done.truncated[keys[i]])
            for i, vector in vectors.items()
        },
        computed=[i for i, key in enumerate(keys) if done.outcomes[key] is Outcome.COMPUTED],
        coalesced=[i for i, key in enumerate(keys) if done.outcomes[key] is Outcome.COALESCED],
        errors={i: done.errors[key] for i, key in enumerate(keys) if done.outcomes[key] is Outcome.FAILED},
        seconds=seconds,
    )


def _readings(model: LoadedModel, space: Space, message: RequestMessage, request: Request) -> Answer:
    texts = [str(text) for text in request.texts]
    prompt = model.prompts[message.prompt_name]
    if message.reading == "count":
        tokens = model.backend.tokenize(texts, prompt=prompt, variant=space.variant)
        return Answer(readings=[[len(read.ids), read.truncated] for read in tokens])
    special = message.reading != "bare"
    spelled = [model.backend.spell(prompt + text, special=special) for text in texts]
    return Answer(readings=[[asdict(token) for token in tokens] for tokens in spelled])
