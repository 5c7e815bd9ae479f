"""The Celery application: the same settings for those who send and those who work."""

from celery import Celery
from kombu import Queue

from semel.tasks.queue.names import queue_name
from semel.values.text import Lane

TASK_THREADS = 64
"""Threads of a worker. They wait for the device most of the time. More than a queue's window of bulk chunks
(`semel.tasks.queue.dispatch.MAX_WINDOW`), so that an interactive request always finds one free."""

_LANES = (Lane.INTERACTIVE, Lane.BULK)
"""In the order in which a worker looks at its queues."""

VISIBILITY_TIMEOUT_S = 300
"""kombu gives a message to another worker when it was not acknowledged for this long, and never refreshes the
clock (celery #5935), so it must exceed any task. A chunk takes seconds. Recovery does not wait for it: leases do."""


def make_app(redis_url: str, *, device: str | None = None, events: bool = False) -> Celery:
    """A Celery application on `redis_url`.

    Args:
        device: for a worker, whose queues it consumes; None only sends.
        events: tell Flower of each task; costs the latency of a request two milliseconds.
    """
    app = Celery("semel", broker=redis_url)
    app.conf.update(
        accept_content=["json"],  # pickle from a broker is code from a stranger
        task_serializer="json",
        task_ignore_result=True,  # the cache is the result backend
        task_acks_late=True,  # a chunk leaves the queue when it is done
        task_reject_on_worker_lost=True,
        worker_pool="threads",  # CUDA, Metal and MLX do not survive a fork; merging needs shared memory
        worker_concurrency=TASK_THREADS,
        # No limit: dispatch bounds what is under way. A full prefetch window makes kombu's loop sleep up to 1 s.
        worker_prefetch_multiplier=0,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_send_task_events=events,
        worker_cancel_long_running_tasks_on_connection_loss=False,  # they are idempotent and nearly done
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,  # Redis may be away for as long as it likes
        broker_transport_options={
            "visibility_timeout": VISIBILITY_TIMEOUT_S,
            "queue_order_strategy": "priority",  # interactive is listed first
            "socket_connect_timeout": 3,
            "health_check_interval": 10,
            "retry_policy": {"max_retries": 1, "interval_start": 0, "interval_step": 0.1},
        },
        task_queues=[Queue(queue_name(lane, device)) for lane in _LANES] if device else [],
        task_create_missing_queues=True,
    )
    return app
