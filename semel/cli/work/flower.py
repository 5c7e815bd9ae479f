"""Flower, which answers only to the names of this machine: `python -m semel.cli.work.flower`, with Flower's options.

The owner of a website can let its name resolve to this machine's address (DNS rebinding), and its page could then read
Flower's. Browsers send the name in the header Host, which no script can change.
"""

import sys
from collections.abc import Callable
from typing import Any

from celery.__main__ import main as celery
from flower.api import BaseApiHandler
from flower.views import BaseHandler
from tornado.web import HTTPError

from semel.api.edge.foreign_pages import is_ours


def _guarded(prepare: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """What tornado calls before each request is handled, after a look at the request's Host."""

    def look(handler: Any) -> Any:
        if not is_ours(handler.request.headers.get("Host", ""), frozenset()):
            raise HTTPError(403, reason="Flower answers to localhost and to IP addresses only")
        return prepare(handler)

    return look


def main() -> None:
    """Run Flower until it is stopped."""
    own = BaseHandler.prepare, BaseApiHandler.prepare  # the second one overrides the first
    BaseHandler.prepare, BaseApiHandler.prepare = map(_guarded, own)
    sys.argv = ["celery", "flower", *sys.argv[1:]]
    celery()


if __name__ == "__main__":
    main()
