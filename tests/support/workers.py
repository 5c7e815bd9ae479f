"""States of the worker of an API in this process."""

from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.service import Service


@contextmanager
def no_worker(api: Service) -> Iterator[None]:
    """Take the worker off the roster for a block."""
    api.worker.leave(api.services)
    try:
        yield
    finally:
        api.worker.beat(api.services)
        api.services.fleet.roster.live()  # forget the copy that had no worker


@contextmanager
def paused(api: Service) -> Iterator[None]:
    """Drop every message for a block, so that work stays where it is."""
    api.worker.paused = True
    try:
        yield
    finally:
        api.worker.paused = False


def send_again(api: Service, since: int) -> None:
    """Run the messages that were dropped, from this position in `sent`."""
    for task, args, queue in api.worker.sent[since:]:
        api.worker.send_task(task, args=args, queue=queue)
