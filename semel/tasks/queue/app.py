"""The Celery application, with the same settings for the API that sends and the workers that receive."""

from celery import Celery
from kombu import Queue

from semel.tasks.queue import transport
from semel.tasks.queue.names import queue_name
from semel.values.text import Lane

TASK_THREADS = 256
"""Threads of a worker, one for each message that it has taken; they mostly wait, for the device or for a model that
loads. The windows of dispatch and of the outbox bound the messages of each vector space, so that there is a free thread
for those of the others. A thread is started when it is first needed."""

_LANES = (Lane.INTERACTIVE, Lane.BULK)
"""The order in which a worker polls its queues."""


def make_app(redis_url: str, *, device: str | None = None, events: bool = False) -> Celery:
    """Return a Celery application on `redis_url`.

    Args:
        device: the device whose queues a worker consumes; None for an application that only sends.
        events: publish task events for Flower, which adds two milliseconds to the latency of a request.
    """
    transport.use()
    app = Celery("semel", broker=redis_url)
    app.conf.update(
        accept_content=["json"],  # unpickling a message would run whatever code its sender chose
        task_serializer="json",
        task_ignore_result=True,  # the cache is the result backend
        task_acks_late=True,  # a message is acknowledged when its chunk is done
        task_reject_on_worker_lost=True,
        worker_pool="threads",  # CUDA, Metal and MLX do not survive a fork; batching needs shared memory
        worker_concurrency=TASK_THREADS,
        worker_prefetch_multiplier=1,  # a worker takes no message that it cannot begin: the others wait where all see
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_send_task_events=events,
        worker_cancel_long_running_tasks_on_connection_loss=False,  # tasks are idempotent and take seconds
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,  # keep trying, however long Redis is down
        broker_transport_options={
            "queue_order_strategy": "priority",  # poll in the order of `_LANES`
            "socket_connect_timeout": 3,
            "socket_timeout": 10,  # a Redis that is silent must not hold a sender
            "health_check_interval": 5,  # a consumer that hears nothing connects again after 11 s at most
            "retry_policy": {"max_retries": 1, "interval_start": 0, "interval_step": 0.1},
        },
        task_queues=[Queue(queue_name(lane, device)) for lane in _LANES] if device else [],
        task_create_missing_queues=True,
    )
    return app
