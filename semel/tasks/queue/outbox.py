"""Requests on their way to the workers: what waits for one vector space gathers into few messages.

At most a few messages of each vector space are under way; what comes meanwhile waits here and travels in the next one.
So messages grow with the load, Redis and the workers stay small, and a request whose client has gone is never sent.
No thread waits for an answer: each request has a future. `semel.tasks.queue.care` looks after those without an answer.
"""

import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

import redis
from celery import Celery

from semel.errors import SemelError, UnavailableError
from semel.log import get_log
from semel.redis_client import RedisClock, unreachable
from semel.tasks.queue.doorbell import Doorbell, abandon
from semel.tasks.queue.message import Answer, Reading, Request, RequestMessage
from semel.tasks.queue.names import EMBED_TEXTS, READ_TEXTS, queue_name
from semel.tasks.queue.pending import Group, Message, Pending
from semel.tasks.queue.router import Router
from semel.tasks.queue.transport import NOT_SENT
from semel.tracing import span, traceparent, within
from semel.values.model import Space
from semel.values.text import Input, Lane

log = get_log("requests")

_MOST_REQUESTS = 128
"""Requests in one message: more of them would make the first wait for the last."""


class Outbox:
    """Sends requests and receives their answers. Thread-safe.

    Args:
        inline_bytes: characters of text that one message holds, unless a single request has more.
    """

    def __init__(self, app: Celery, client: "redis.Redis", router: Router, *, inline_bytes: int) -> None:
        self._app = app
        self._client = client
        self._router = router
        self._inline_bytes = inline_bytes
        self._clock = RedisClock(client)
        self._groups: dict[tuple[bytes, str, Reading | None], Group] = {}
        self._pending: dict[str, Pending] = {}
        self._texts: Counter[str] = Counter()  # texts without an answer, by kind of device
        self._settled: list[str] = []  # requests whose state in Redis is of no use any more
        self._gone: list[str] = []  # requests that were sent and that nobody waits for any more
        self._taken_at: dict[str, float] = {}  # device → when the latest message was sent that a worker has taken
        self._changed = threading.Condition()
        self._stopping = False
        self._bell = Doorbell(client, self.answered)
        self._courier = threading.Thread(target=self._deliver, name="courier", daemon=True)
        self._courier.start()

    @property
    def name(self) -> str:
        """The name of this process among the senders."""
        return self._bell.name

    def submit(
        self, space: Space, texts: Sequence[Input], *, device: str, timeout_s: float, reading: Reading | None = None
    ) -> Pending:
        """Send a request as soon as there is room; its `answer` gets the answer, or the reason why there is none.

        The reasons: TimedOutError, UnavailableError (no live worker serves the space, or Redis does not answer),
        DeviceLostError (workers died while they worked on it).

        Args:
            texts: distinct texts or pairs of this space.
            device: the kind of device that will probably get it, for `texts`.
        """
        request = Request(uuid.uuid4().hex, texts, time.time(), self._clock.now() + timeout_s)
        with self._changed:
            if self._stopping:
                raise UnavailableError("the server is stopping; try again")
            group = self._groups.setdefault((space.key_base, space.model, reading), Group(space, reading))
            pending = Pending(request, group, device, time.monotonic() + timeout_s, traceparent())
            pending.answer.set_running_or_notify_cancel()  # from now on it cannot be cancelled, only dropped
            self._pending[request.id] = pending
            self._texts[device] += len(texts)
            group.waiting.append(pending)
            self._changed.notify()
        return pending

    def drop(self, dropped: Iterable[Pending]) -> None:
        """Forget requests that nobody waits for any more; what the device has not begun will not be computed."""
        with self._changed:
            self._gone += [p.request.id for p in dropped if self._forget(p) and p.was_sent]
            self._changed.notify()

    def texts(self, device: str) -> int:
        """The number of texts that wait for their answer on a kind of device, here, in Redis or in a worker."""
        return self._texts[device]

    def waiting(self) -> dict[str, int]:
        """`texts` of every kind of device with a text that waits."""
        with self._changed:
            return {device: count for device, count in self._texts.items() if count}

    def close(self) -> None:
        """Stop; requests that still wait fail with UnavailableError."""
        with self._changed:
            self._stopping = True
            self.fail(self.pending(), UnavailableError("the server is stopping; try again"))
        self._courier.join(timeout=3)
        self._bell.close()

    # For the care of requests

    def pending(self) -> list[Pending]:
        """The requests without an answer, sent or not."""
        with self._changed:
            return list(self._pending.values())

    def passed_by(self, pending: Pending) -> bool:
        """Whether a worker has taken a message that was sent after this request's own, to the same queue."""
        message = pending.message
        return message is not None and self._taken_at.get(message.device, 0.0) > message.sent_at

    def send_again(self, again: Iterable[Pending], *, after_death: bool) -> None:
        """Let requests wait for a new message: theirs is lost, or its worker or its pool is gone.

        Args:
            after_death: the worker may have died of them, so each gets a message of its own.
        """
        with self._changed:
            for pending in again:
                if pending.request.id in self._pending and pending.message is not None:
                    self._leave_message(pending)
                    pending.message = None
                    if after_death:
                        pending.request = replace(pending.request, deaths=pending.request.deaths + 1)
                    pending.group.waiting.appendleft(pending)
            self._changed.notify()

    def answered(self, request_id: str, answer: Answer) -> None:
        """Hand over an answer; without effect if nobody waits for it any more."""
        with self._changed:
            pending = self._pending.get(request_id)
            if pending is None:
                return
            self.taken(pending)
            self._forget(pending)
            self._settled.append(request_id)
        pending.answer.set_result(answer)

    def taken(self, pending: Pending, *, deaths: int = 0) -> None:
        """Note that a worker has taken the message of this request.

        Args:
            deaths: how many workers had died of it before, as far as that worker knows.
        """
        if deaths > pending.request.deaths:  # a worker that lost its device has passed it on
            pending.request = replace(pending.request, deaths=deaths)
        if (message := pending.message) is not None:
            self._taken_at[message.device] = max(message.sent_at, self._taken_at.get(message.device, 0.0))

    def fail(self, failed: Iterable[Pending], error: Exception) -> None:
        """End requests with an error; those that were sent will not be computed."""
        with self._changed:
            ended = [pending for pending in failed if self._forget(pending)]
            self._gone += [pending.request.id for pending in ended if pending.was_sent]
            self._changed.notify()
        for pending in ended:
            pending.answer.set_exception(error)

    def take_settled(self) -> list[str]:
        """Remove and return the ids of answered requests, whose state in Redis can be deleted."""
        with self._changed:
            settled, self._settled = self._settled, []
        return settled

    def _forget(self, pending: Pending) -> bool:
        """Remove a request; returns False if it is settled already. The caller holds the lock."""
        if self._pending.pop(pending.request.id, None) is None:
            return False
        self._texts[pending.device] -= len(pending.request.texts)
        if pending.message is None:
            pending.group.waiting.remove(pending)
        else:
            self._leave_message(pending)
        return True

    def _leave_message(self, pending: Pending) -> None:
        """Take a request out of its message, and make room when that was the last one. The caller holds the lock."""
        message = pending.message
        if message is None or pending.request.id not in message.open:
            return
        message.open.discard(pending.request.id)
        if not message.open:
            message.group.under_way -= 1
            self._changed.notify()

    # The courier's thread

    def _deliver(self) -> None:
        while True:
            with self._changed:
                while not (self._stopping or self._gone) and (pause_s := self._pause_s()) != 0.0:
                    self._changed.wait(pause_s)
                gone, self._gone = self._gone, []
                stopping, group = self._stopping, self._next_group()
                batch, message = self._take(group) if group is not None and not stopping else ([], None)
            if gone:
                self._abandon(gone)
            if stopping:
                return
            if message is not None:
                self._send_or_fail(batch, message)

    def _pause_s(self) -> float | None:
        """Seconds until a message may be sent; None if that depends on what happens first."""
        now = time.monotonic()
        pauses = (group.pause_s(now) for group in self._groups.values())
        return min((pause_s for pause_s in pauses if pause_s is not None), default=None)

    def _next_group(self) -> Group | None:
        now = time.monotonic()
        ready = (group for group in self._groups.values() if group.pause_s(now) == 0.0)
        return min(ready, key=lambda group: group.under_way, default=None)

    def _take(self, group: Group) -> tuple[list[Pending], Message]:
        """Put the next requests of a group into a message; one that may have killed a worker travels alone."""
        batch = [group.waiting.popleft()]
        size = batch[0].request.size
        while group.waiting and len(batch) < _MOST_REQUESTS and not batch[0].request.deaths:
            following = group.waiting[0].request
            size += following.size
            if following.deaths or size > self._inline_bytes:
                break
            batch.append(group.waiting.popleft())
        message = Message(group, {pending.request.id for pending in batch})
        for pending in batch:
            pending.message, pending.was_sent = message, True
        group.under_way += 1
        group.sent_at = time.monotonic()
        return batch, message

    def _send_or_fail(self, batch: Sequence[Pending], message: Message) -> None:
        try:
            self._send(batch, message)
        except NOT_SENT as error:
            self.fail(batch, unreachable(error))
        except SemelError as error:
            self.fail(batch, error)
        except Exception as error:  # the edge of the thread: these requests fail, the next ones are sent
            log.exception("requests not sent")
            self.fail(batch, SemelError(f"{type(error).__name__}: {error}"))

    def _send(self, batch: Sequence[Pending], message: Message) -> None:
        group, space = message.group, message.group.space
        route = self._router.route(space, must_live=True)
        group.workers = max(1, route.workers)
        message.device, message.sent_at = route.device, time.monotonic()
        requests = [pending.request for pending in batch]
        envelope = RequestMessage(
            self.name,
            space.model,
            space.prompt_name,
            space.published.fingerprint.hex(),
            requests,
            group.reading,
            namespace=space.namespace,
            variant=space.variant.to_json(),
        )
        with within(batch[0].parent), span("semel.send"):
            self._app.send_task(
                EMBED_TEXTS if group.reading is None else READ_TEXTS,
                args=[envelope.to_message()],
                queue=queue_name(Lane.INTERACTIVE, route.device),
                ignore_result=True,
                argsrepr=envelope.shown,
            )

    def _abandon(self, gone: Sequence[str]) -> None:
        try:
            abandon(self._client, gone)
        except redis.RedisError as error:
            log.warning("workers not informed that clients have gone", requests=len(gone), reason=str(error))
