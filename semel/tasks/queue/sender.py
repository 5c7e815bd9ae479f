"""Small requests through the queue: sent with their texts, answered by the doorbell.

Larger ones become a job in the interactive lane, so that Redis stays small.
"""

import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

import redis
from celery import Celery
from kombu.exceptions import OperationalError

from semel.backends.devices.find import KINDS
from semel.cache.catalog import Catalog
from semel.cache.store import VectorStore
from semel.errors import TimedOutError, UnavailableError, UnknownDeviceError, revive
from semel.log import get_log
from semel.settings import Settings
from semel.tasks.fleet.pools import best_pool
from semel.tasks.fleet.roster import Roster, unreachable
from semel.tasks.jobs.store import WAITS, JobStore, NewChunk
from semel.tasks.queue.backlog import Backlog
from semel.tasks.queue.dispatch import Dispatcher
from semel.tasks.queue.doorbell import Answer, Doorbell
from semel.tasks.queue.names import EMBED_TEXTS, READ_TEXTS, queue_name
from semel.tracing import span
from semel.values import Computed, Input, Lane, Outcome, Space, UseCase, as_input, device_kind, size_of

log = get_log("requests")

_RESEND_S = 10.0
"""Without an answer for this long the message may be lost (Redis was emptied): send it again."""

_LOOK_S = 1.0


Reading: TypeAlias = Literal["count", "spell", "bare"]


@dataclass(frozen=True)
class Request:
    """What travels to a worker: ~100 bytes and the texts or pairs.

    Attributes:
        sent_at: Unix seconds.
        passed_on: how many workers could not serve it.
        reading: for READ_TEXTS: `count` for [tokens, truncated] of each text, `spell` for its tokens one by one,
            `bare` for the same without special tokens.
    """

    id: str
    reply_to: str
    model: str
    prompt_name: str
    fingerprint: str
    texts: Sequence[Input]
    sent_at: float
    reading: Reading | None = None
    passed_on: int = 0

    @classmethod
    def from_message(cls, message: dict[str, Any]) -> "Request":
        return cls(**{**message, "texts": [as_input(item) for item in message["texts"]]})

    @property
    def shown(self) -> str:
        """What Flower shows: never the texts."""
        return f"({len(self.texts)} texts, request {self.id})"

    def to_message(self) -> dict[str, object]:
        return asdict(self)


@dataclass(frozen=True)
class Route:
    """The pool that takes a piece of work, and why this one."""

    device: str
    why: str


class Router:
    """Picks the device pool for a vector space.

    Args:
        use_case: in which order pools are preferred, unless they were measured.
    """

    def __init__(self, roster: Roster, catalog: Catalog, *, use_case: UseCase = "auto") -> None:
        self._roster = roster
        self._catalog = catalog
        self._use_case = use_case

    def route(self, space: Space, *, wanted: str = "auto", must_live: bool = False) -> Route:
        """The pool for this space: one that serves the very same fingerprint.

        Args:
            wanted: a device kind, or `auto` for the best that is alive.
            must_live: refuse when no worker is alive; else the work waits for one.

        Raises:
            UnavailableError: no live worker, and `must_live`; or Redis does not answer.
            UnknownModelError: no worker ever served this model.
        """
        wanted, model = device_kind(wanted), space.model
        if wanted not in ("auto", *KINDS):
            raise UnknownDeviceError(f"semel knows no device {wanted!r} (known: auto, {', '.join(KINDS)})")
        live = [w for w in self._roster.live_lately() if w.serves(space.model, space.fingerprint)]
        if not live:  # it may have come within the last second
            live = [w for w in self._roster.live() if w.serves(space.model, space.fingerprint)]
        if wanted != "auto":
            live = [w for w in live if device_kind(w.device) == wanted]
        if live:
            kind, why = best_pool(live, model=model, use_case=self._use_case)
            count = sum(device_kind(w.device) == kind for w in live)
            reason = "asked for" if wanted != "auto" else why
            return Route(kind, f"{kind}: {reason}, {count} live worker{'s' if count > 1 else ''} with {model}")
        device = device_kind(self._catalog.find(model)[1]) if wanted == "auto" else wanted
        if must_live:
            raise UnavailableError(
                f"no live worker serves {model!r}{'' if wanted == 'auto' else f' on {wanted}'}; "
                f"start one: semel worker --device {device}"
            )
        return Route(device, f"{device}: no worker with {model} is alive now, {WAITS}")


class QueueSender:
    """Has missing keys computed by the workers, and waits for them.

    Args:
        settings: say how much text travels in the message, where a larger request is cut, as a job is, and how long a
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
            OverloadedError: too much waits already.
            UnavailableError: no worker, or no Redis.
            TimedOutError: not done in time; what is done is cached.
            BackendError: the device failed.
        """
        route = self._router.route(space, must_live=True)
        self._backlog.check(lane, route.device)
        if sum(size_of(item) for item in missing.values()) <= self._inline_bytes:
            return self._by_message(space, missing, lane)
        return self._by_job(space, missing, lane, route)

    def count_tokens(self, space: Space, texts: Sequence[str]) -> list[tuple[int, bool]]:
        """The tokens of each text, and whether the model cuts it; raises as `compute` does."""
        return [(tokens, cut) for tokens, cut in self._read(space, texts, "count")]

    def spell(self, space: Space, texts: Sequence[str], *, special: bool) -> list[list[dict[str, Any]]]:
        """The tokens of each text one by one, as `semel.backends.base.Spelled`; raises as `compute` does."""
        return self._read(space, texts, "spell" if special else "bare")

    def _read(self, space: Space, texts: Sequence[str], reading: Reading) -> list[Any]:
        readings = list[Any]()
        for part in _parts(texts, most_texts=len(texts), most_size=self._inline_bytes):
            request = self._request(space, texts[part], reading=reading)
            readings += self._answer_to(READ_TEXTS, request, space, Lane.INTERACTIVE).readings
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

    def _answer_to(self, task: str, request: Request, space: Space, lane: Lane) -> Answer:
        self._doorbell.expect(request.id)
        try:
            answer = self._ask(task, request, space, lane)
        except (redis.RedisError, OperationalError) as error:
            raise unreachable(error) from error
        finally:
            self._doorbell.forget(request.id)
        if answer.error is not None:
            raise revive(answer.error.code, answer.error.message)
        return answer

    def _by_message(self, space: Space, missing: Mapping[bytes, Input], lane: Lane) -> Computed:
        answer = self._answer_to(EMBED_TEXTS, self._request(space, list(missing.values())), space, lane)
        keys = list(missing)
        done = Computed(inference_s=answer.seconds)
        for positions, outcome in ((answer.computed, Outcome.COMPUTED), (answer.coalesced, Outcome.COALESCED)):
            done.outcomes.update((keys[i], outcome) for i in positions)
        for i, item_error in answer.errors.items():
            done.fail(keys[i], item_error)
        return done

    def _ask(self, task: str, request: Request, space: Space, lane: Lane) -> Answer:
        deadline = time.monotonic() + self._timeout_s
        while time.monotonic() < deadline:
            route = self._router.route(space, must_live=True)  # each time: the pool may be gone since
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
                    break  # that pool is gone
        raise TimedOutError(f"no worker answered within {self._timeout_s:g} s; ask again, what was computed is cached")

    def _by_job(self, space: Space, missing: Mapping[bytes, Input], lane: Lane, route: Route) -> Computed:
        job = self._jobs.create(
            space, lane=lane, device=route.device, why=route.why, truncate=True, metadata={"origin": "request"}
        )
        keys, texts = list(missing), list(missing.values())
        parts = _parts(texts, most_texts=self._chunk_texts, most_size=self._chunk_bytes)
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
                raise TimedOutError(f"not done within {self._timeout_s:g} s; ask again, what was computed is cached")
            time.sleep(pause_s)
            pause_s = min(pause_s * 1.3, 0.25)
        if job.error is not None:
            raise revive(job.error.code, job.error.message)


def _parts(items: Sequence[Input], *, most_texts: int, most_size: int) -> Iterator[slice]:
    """Where to cut: parts of at most so many texts and characters, and of one text at the least."""
    first, size = 0, 0
    for at, item in enumerate(items):
        own = size_of(item)
        if at > first and (at - first == most_texts or size + own > most_size):
            yield slice(first, at)
            first, size = at, 0
        size += own
    if items:
        yield slice(first, len(items))
