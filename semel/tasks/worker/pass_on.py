"""Passes messages of requests on to another worker that can serve them."""

import time
from dataclasses import dataclass, replace

import redis
from celery import Celery

from semel.errors import UnavailableError
from semel.log import get_log
from semel.tasks.fleet.failover import Failover
from semel.tasks.fleet.pools import best_pool
from semel.tasks.queue.doorbell import give_up
from semel.tasks.queue.message import Request, RequestMessage
from semel.tasks.queue.names import queue_name
from semel.tasks.queue.transport import NOT_SENT
from semel.tracing import span
from semel.values.device import UseCase, device_kind
from semel.values.text import Lane

log = get_log("worker")

_MAX_PASSES, _PASS_S = 20, 0.05
"""How often a message is passed from worker to worker, with this pause, before it is answered with the error."""

_PASSES_HERE = 4
"""After this many passes the message avoids its own queue: the worker expected there may already be dead."""

MOST_DEATHS = 2
"""A request that may have killed this many devices is not passed on again."""


@dataclass(frozen=True)
class PassOn:
    """Passes requests on to another worker that serves their vector space.

    Attributes:
        worker_id, device: id and device of this worker.
        use_case: selects the order in which pools are preferred.
    """

    app: Celery
    client: "redis.Redis"
    failover: Failover
    worker_id: str
    device: str
    use_case: UseCase

    def __call__(self, task: str, message: RequestMessage, *, pause_s: float = _PASS_S) -> bool:
        """Send the message to another worker; returns False when none can take it.

        Args:
            pause_s: gives another worker of the same queue the time to take it.
        """
        try:
            others = self.failover.others(self.worker_id, message.model, bytes.fromhex(message.fingerprint))
            if not others or message.passed_on >= _MAX_PASSES:
                return False
            if message.passed_on >= _PASSES_HERE:
                here = device_kind(self.device)
                others = [card for card in others if device_kind(card.device) != here] or others
            time.sleep(pause_s)
            device, _ = best_pool(others, model=message.model, use_case=self.use_case)
            passed = replace(message, passed_on=message.passed_on + 1)
            give_up(self.client, [request.id for request in message.requests], worker_id=self.worker_id)
            with span("semel.send"):
                self.app.send_task(
                    task,
                    args=[passed.to_message()],
                    queue=queue_name(Lane.INTERACTIVE, device),
                    ignore_result=True,
                    argsrepr=passed.shown,
                )
        except (UnavailableError, *NOT_SENT) as error:
            log.warning("requests not passed on", requests=len(message.requests), reason=str(error))
            return False
        return True

    def after_death(self, task: str, message: RequestMessage) -> list[Request]:
        """Pass requests on whose texts may have killed this worker's device, each in a message of its own.

        Returns those that were not passed on.
        """
        time.sleep(_PASS_S)
        return [request for request in message.requests if not self._passed_alone(task, message, request)]

    def _passed_alone(self, task: str, message: RequestMessage, request: Request) -> bool:
        died = replace(request, deaths=request.deaths + 1)
        return died.deaths < MOST_DEATHS and self(task, replace(message, requests=[died]), pause_s=0.0)
