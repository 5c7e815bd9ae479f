"""Celery's loop of a worker: it takes messages from the queues, and hands them to the parts that serve them."""

import threading
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from celery import Celery
from celery.signals import setup_logging, task_prerun
from celery.worker import state

from semel.log import get_log
from semel.tasks.jobs.rows import Place
from semel.tasks.queue.message import RequestMessage
from semel.tasks.queue.names import EMBED_CHUNKS, EMBED_SMALL_CHUNKS, EMBED_TEXTS, READ_TEXTS
from semel.tasks.worker.replies import Replies
from semel.together import Together
from semel.tracing import traceparent, within

log = get_log("worker")

_MOST = 16
"""Messages of small chunks that are computed together."""

_PAUSE_S = 1.0
"""Before a loop that failed is started again."""

_AT_ONCE = 2
"""Groups of them under way at once: one is computed while the other one is read and stored."""


def consume(
    app: Celery,
    *,
    worker_id: str,
    embed_chunks: Callable[[Sequence[Place]], None],
    replies: Replies,
    redelivered: Callable[[], None],
) -> None:
    """Run Celery's loop until a signal; each message is served in a thread.

    A loop that fails is started again: the messages that it had are recovered like those of a worker that died.

    Args:
        embed_chunks: called with the chunks of a message.
        replies: serves messages of requests.
        redelivered: called for each message that was delivered again.
    """

    def count_redelivery(task: Any, **_: Any) -> None:
        if (task.request.delivery_info or {}).get("redelivered"):
            redelivered()

    small = _SmallChunks(embed_chunks)
    _register(app, embed_chunks, small, replies)
    setup_logging.connect(_keep_log_configuration, weak=False)
    task_prerun.connect(count_redelivery, weak=False)
    warnings.filterwarnings("ignore", message=".*superuser privileges.*")  # containers run as root
    options = {"quiet": True, "without_gossip": True, "without_mingle": True, "loglevel": "WARNING"}
    try:
        while True:
            consumer = app.Worker(hostname=worker_id, **options)
            consumer.start()
            if not consumer.exitcode or _is_stopping():
                return
            log.error("the connection to the queues failed, see above; it is opened again", seconds=_PAUSE_S)
            time.sleep(_PAUSE_S)
    finally:
        small.close()


def _is_stopping() -> bool:
    """Whether a signal asked Celery's loop to end."""
    asked = (state.should_stop, state.should_terminate)  # exit codes, of which 0 is one
    return any(code is not None and code is not False for code in asked)


_Traced: TypeAlias = tuple[Sequence[Place], str | None]
"""The chunks of a message, and the `traceparent` of the task that received it."""


class _SmallChunks:
    """Computes the chunks of several messages together; those of one vector space do not wait for another's model."""

    def __init__(self, embed_chunks: Callable[[Sequence[Place]], None]) -> None:
        self._embed_chunks = embed_chunks
        self._spaces: dict[str, Together[_Traced, None]] = {}
        self._lock = threading.Lock()

    def embed(self, places: Sequence[Place], fingerprint: str) -> None:
        """Compute the chunks of a message, and return when that is done."""
        with self._lock:
            if fingerprint not in self._spaces:
                self._spaces[fingerprint] = Together("small chunks", self._join, most=_MOST, threads=_AT_ONCE)
            together = self._spaces[fingerprint]
        together.submit((places, traceparent())).result()

    def _join(self, messages: Sequence[_Traced]) -> Sequence[None]:
        with within(messages[0][1]):  # what is done for all of them appears in the trace of the first
            self._embed_chunks([place for places, _ in messages for place in places])
        return [None] * len(messages)

    def close(self) -> None:
        """End the threads."""
        for together in self._spaces.values():
            together.close()


def _register(
    app: Celery,
    serve: Callable[[Sequence[Place]], None],
    small: _SmallChunks,
    replies: Replies,
) -> None:
    # What a newer version adds to a message is ignored, so that workers of two versions can share a queue.

    @app.task(name=EMBED_CHUNKS)
    def embed_chunks(places: list[list[Any]], *_newer: object, **_named: object) -> None:
        serve([(job_id, position) for job_id, position in places])

    @app.task(name=EMBED_SMALL_CHUNKS)
    def embed_small_chunks(places: list[list[Any]], fingerprint: str, *_newer: object, **_named: object) -> None:
        small.embed([(job_id, position) for job_id, position in places], fingerprint)

    @app.task(name=EMBED_TEXTS)
    def embed_texts(message: dict[str, Any], *_newer: object, **_named: object) -> None:
        replies.embed(RequestMessage.from_message(message))

    @app.task(name=READ_TEXTS)
    def read_texts(message: dict[str, Any], *_newer: object, **_named: object) -> None:
        replies.read(RequestMessage.from_message(message))


def _keep_log_configuration(**_: Any) -> None:
    """Do nothing: a receiver of this signal keeps Celery from configuring the log."""
