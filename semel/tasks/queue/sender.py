"""Requests through the queue: a small one is sent with its texts, and the doorbell brings the answer.

A larger one becomes a job in the interactive lane, so that Redis stays small.
"""

import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import redis
from celery import Celery
from kombu.exceptions import OperationalError

from semel.cache.store import VectorStore
from semel.errors import TimedOutError, revive
from semel.log import get_log
from semel.redis_client import unreachable
from semel.settings import Settings
from semel.tasks.jobs.cutting import cut_places
from semel.tasks.jobs.rows import NewChunk
from semel.tasks.jobs.store import JobStore
from semel.tasks.queue.backlog import Backlog
from semel.tasks.queue.dispatch import Dispatcher
from semel.tasks.queue.doorbell import Doorbell
from semel.tasks.queue.message import Answer, Reading, Request
from semel.tasks.queue.names import EMBED_TEXTS, READ_TEXTS, queue_name
from semel.tasks.queue.router import Route, Router
from semel.tracing import span
from semel.values.model import Space
from semel.values.text import Input, Lane, Outcome, size_of
from semel.values.vectors import Computed

log = get_log("requests")

_RESEND_S = 10.0
"""Send a request again if there is no answer after this time: the message may be lost, as when Redis was emptied."""

_LOOK_S = 1.0
"""How often a waiting request looks for a stored answer, and whether its pool is still alive."""


class QueueSender:
    """Lets the workers compute missing keys, and waits for the result.

    Args:
        settings: set how much text may travel in a message, how a larger request is cut into chunks, and how long a
            call may take.
    """

    def __init__(
        self,
        app: Celery,
        doorbell: Doorbell,
        router: Router,
        jobs: JobStore,
        dispatcher: Dispatcher,
        store: VectorStore,
        backlog: Backlog,
        settings: Settings,
    ) -> None:
        self._app = app
        self._doorbell = doorbell
        self._router = router
        self._jobs = jobs
        self._dispatcher = dispatcher
        self._store = store
        self._backlog = backlog
        self._inline_bytes = settings.inline_bytes
        self._chunk_texts = settings.chunk_texts
        self._chunk_bytes = settings.chunk_bytes
        self._timeout_s = settings.request_timeout_s

    def compute(self, space: Space, missing: Mapping[bytes, Input], *, lane: Lane = Lane.INTERACTIVE) -> Computed:
        """Bring `missing` (key → text) into the cache.

        Raises:
            OverloadedError: too much work waits already.
            UnavailableError: no live worker serves the space, or Redis does not answer.
            TimedOutError: the workers did not finish in time; the vectors computed so far are cached.
            SemelError: the request failed on the worker, such as a BackendError when the device failed.
        """
        route = self._router.route(space, must_live=True)
        self._backlog.check(lane, route.device)
        if sum(size_of(item) for item in missing.values()) <= self._inline_bytes:
            return self._by_message(space, missing, lane)
        return self._by_job(space, missing, lane, route)

    def count_tokens(self, space: Space, texts: Sequence[str]) -> list[tuple[int, bool]]:
        """The number of tokens of each text, and whether the model truncates it.

        Raises:
            SemelError: as `compute`, except that nothing is refused as overload.
        """
        return [(tokens, cut) for tokens, cut in self._read(space, texts, "count")]

    def spell(self, space: Space, texts: Sequence[str], *, special: bool) -> list[list[dict[str, Any]]]:
        """The tokens of each text one by one, each with the fields of `semel.backends.base.Spelled`.

        Args:
            special: include the special tokens that the model adds.

        Raises:
            SemelError: as `count_tokens`.
        """
        return self._read(space, texts, "spell" if special else "bare")

    def _read(self, space: Space, texts: Sequence[str], reading: Reading) -> list[Any]:
        readings = list[Any]()
        for part in cut_places(texts, most_texts=len(texts), most_size=self._inline_bytes):
            request = self._request(space, texts[part], reading=reading)
            readings += self._request_answer(READ_TEXTS, request, space, Lane.INTERACTIVE).readings
        return readings

    def _request(self, space: Space, texts: Sequence[Input], *, reading: Reading | None = None) -> Request:
        return Request(
            id=uuid.uuid4().hex,
            reply_to=self._doorbell.name,
            model=space.model,
            prompt_name=space.prompt_name,
            fingerprint=space.fingerprint.hex(),
            texts=texts,
            reading=reading,
            sent_at=time.time(),
        )

    def _request_answer(self, task: str, request: Request, space: Space, lane: Lane) -> Answer:
        self._doorbell.expect(request.id)
        try:
            answer = self._send_and_wait(task, request, space, lane)
        except (redis.RedisError, OperationalError) as error:
            raise unreachable(error) from error
        finally:
            self._doorbell.forget(request.id)
        if answer.error is not None:
            raise revive(answer.error.code, answer.error.message)
        return answer

    def _by_message(self, space: Space, missing: Mapping[bytes, Input], lane: Lane) -> Computed:
        answer = self._request_answer(EMBED_TEXTS, self._request(space, list(missing.values())), space, lane)
        keys = list(missing)
        done = Computed(inference_s=answer.seconds)
        for positions, outcome in ((answer.computed, Outcome.COMPUTED), (answer.coalesced, Outcome.COALESCED)):
            done.outcomes.update((keys[i], outcome) for i in positions)
        for i, item_error in answer.errors.items():
            done.fail(keys[i], item_error)
        return done

    def _send_and_wait(self, task: str, request: Request, space: Space, lane: Lane) -> Answer:
        deadline = time.monotonic() + self._timeout_s
        while time.monotonic() < deadline:
            route = self._router.route(space, must_live=True)  # again each time: the pool may have gone meanwhile
            with span("semel.send"):
                self._app.send_task(
                    task,
                    args=[request.to_message()],
                    queue=queue_name(lane, route.device),
                    ignore_result=True,
                    argsrepr=request.shown,
                )
            resend = min(deadline, time.monotonic() + _RESEND_S)
            while (left := resend - time.monotonic()) > 0:
                answer = self._doorbell.wait(request.id, timeout_s=min(_LOOK_S, left))
                if answer is not None:
                    return answer
                if self._router.route(space).device != route.device:
                    break  # the pool is gone: send the request to the next one
        raise TimedOutError(f"no worker answered within {self._timeout_s:g} s; try again, what was computed is cached")

    def _by_job(self, space: Space, missing: Mapping[bytes, Input], lane: Lane, route: Route) -> Computed:
        job = self._jobs.create(
            space,
            lane=lane,
            device=route.device,
            why=route.why,
            waits=route.waits,
            truncate=True,
            metadata={"origin": "request"},
        )
        keys, texts = list(missing), list(missing.values())
        parts = cut_places(texts, most_texts=self._chunk_texts, most_size=self._chunk_bytes)
        new = [NewChunk(part.start, keys[part], texts[part]) for part in parts]
        self._jobs.add_chunks(job, new, lookup=self._store.lookup_on)
        self._jobs.seal(job.id)
        self._dispatcher.top_up(lane, route.device)
        self._wait_for_job(job.id)
        done = Computed()
        for chunk in self._jobs.results(job.id):
            done.outcomes.update(zip(chunk.keys, chunk.outcomes, strict=True))
            for i, error in chunk.errors.items():
                done.fail(chunk.keys[i], error)
        return done

    def _wait_for_job(self, job_id: str) -> None:
        deadline, pause_s = time.monotonic() + self._timeout_s, 0.01
        while not (job := self._jobs.get(job_id)).status.ended:
            if time.monotonic() > deadline:
                self._jobs.cancel(job_id)
                raise TimedOutError(f"not done within {self._timeout_s:g} s; try again, what was computed is cached")
            time.sleep(pause_s)
            pause_s = min(pause_s * 1.3, 0.25)
        if job.error is not None:
            raise revive(job.error.code, job.error.message)
