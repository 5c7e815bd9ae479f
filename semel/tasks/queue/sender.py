"""Requests through the queue: missing texts travel to the workers in messages, and their answers come back."""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import numpy as np

from semel.error_codes import revive
from semel.tasks.jobs.cutting import cut_places
from semel.tasks.queue.backlog import Backlog
from semel.tasks.queue.message import Answer, Reading
from semel.tasks.queue.outbox import Outbox
from semel.tasks.queue.pending import Pending
from semel.tasks.queue.router import Router
from semel.values.model import Space
from semel.values.text import Input, Lane, Outcome
from semel.values.vectors import Computed

_MOST_TEXTS = 256
"""Texts of a request in one message; a larger one travels in several, which several workers may compute."""


@dataclass(frozen=True)
class Sent:
    """Texts that the workers are computing.

    Attributes:
        parts: the keys of each part, in the order of its texts, and its request.
    """

    parts: Sequence[tuple[Sequence[bytes], Pending]]

    @property
    def answers(self) -> "list[Future[Answer]]":
        """Done when the workers have answered, or have not in time."""
        return [pending.answer for _, pending in self.parts]

    def result(self) -> Computed:
        """Wait for every answer, and return the outcome of each key.

        Raises:
            TimedOutError: the workers did not finish in time; the vectors computed so far are cached.
            UnavailableError: no live worker serves the space, or Redis does not answer.
            SemelError: a part failed on its worker, such as a BackendError when the device failed.
        """
        done = Computed(inference_s=0.0)
        for keys, pending in self.parts:
            answer = _without_error(pending.answer.result())
            # The times of several parts overlap, and say nothing about the time of all.
            part = Computed(inference_s=answer.seconds if len(self.parts) == 1 else None)
            for positions, outcome in ((answer.computed, Outcome.COMPUTED), (answer.coalesced, Outcome.COALESCED)):
                part.outcomes.update((keys[i], outcome) for i in positions)
            for i, row in answer.rows.items():
                part.vectors[keys[i]] = np.frombuffer(row.vector, "<f4")
                part.tokens[keys[i]], part.truncated[keys[i]] = row.tokens, row.truncated
            for i, item_error in answer.errors.items():
                part.fail(keys[i], item_error)
            done.merge(part)
        return done


class QueueSender:
    """Lets the workers compute missing keys.

    Args:
        inline_bytes: characters of text that a message holds, unless a single text has more.
        timeout_s: how long a request may wait.
    """

    def __init__(
        self, outbox: Outbox, router: Router, backlog: Backlog, *, inline_bytes: int, timeout_s: float
    ) -> None:
        self._outbox = outbox
        self._router = router
        self._backlog = backlog
        self._inline_bytes = inline_bytes
        self._timeout_s = timeout_s

    def compute(self, space: Space, missing: Mapping[bytes, Input], *, lane: Lane = Lane.INTERACTIVE) -> Computed:
        """Bring `missing` (key → text) into the cache, and wait until it is there. Raises as `begin` and `Sent`."""
        return self.begin(space, missing, lane=lane).result()

    def begin(self, space: Space, missing: Mapping[bytes, Input], *, lane: Lane = Lane.INTERACTIVE) -> Sent:
        """Have `missing` (key → text) computed, without waiting for it.

        Raises:
            OverloadedError: too much work waits already.
            UnavailableError: no live worker serves the space, or Redis does not answer.
        """
        route = self._router.route(space, must_live=True)
        self._backlog.check(lane, route.device)
        keys, texts = list(missing), list(missing.values())
        parts = cut_places(texts, most_texts=_MOST_TEXTS, most_size=self._inline_bytes)
        return Sent(
            [
                (
                    keys[part],
                    self._outbox.submit(space, texts[part], device=route.device, timeout_s=self._timeout_s),
                )
                for part in parts
            ]
        )

    def drop(self, sent: Sent) -> None:
        """Forget texts that nobody waits for any more; what the device has not begun will not be computed."""
        self._outbox.drop([pending for _, pending in sent.parts])

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
        device = self._router.route(space, must_live=True).device
        pending = [
            self._outbox.submit(space, texts[part], device=device, timeout_s=self._timeout_s, reading=reading)
            for part in cut_places(texts, most_texts=len(texts), most_size=self._inline_bytes)
        ]
        return [each for part in pending for each in _without_error(part.answer.result()).readings]


def _without_error(answer: Answer) -> Answer:
    """The answer. Raises the error of the whole request, if it has one."""
    if answer.error is not None:
        raise revive(answer.error.code, answer.error.message)
    return answer
