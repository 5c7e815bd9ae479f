"""The core of semel in one function: key → read → send the missing texts → read again.

The sender is injected: this process's engine (`LocalSender`) or the workers behind the queue (`QueueSender`). The
function is written as steps, which stop where the cache must be read and where texts must be computed; see
`semel.steps`.
"""

import time
from collections.abc import Callable, Sequence

import numpy as np

from semel.cache.keys import input_keys
from semel.cache.store import VectorStore
from semel.errors import TextTooLongError, UnavailableError
from semel.steps import LookUp, Missing, Sender, Steps, finish
from semel.tracing import is_on, span
from semel.values.model import Space
from semel.values.text import Input, ItemError, Lane, Outcome
from semel.values.vectors import Computed, Embedded, Found

_ATTEMPTS = 3
"""A prune may delete a new vector before it is read, but hardly twice in a row."""


class Pipeline:
    """Turns texts into vectors and computes each text once. Thread-safe.

    Args:
        store: the cache.
        sender: has the missing texts computed.
        on_embedded: called after each request with the outcomes of its texts.
    """

    def __init__(
        self,
        store: VectorStore,
        sender: Sender,
        *,
        on_embedded: Callable[[Space, Sequence[Outcome]], None] = lambda _space, _outcomes: None,
    ) -> None:
        self._store = store
        self._sender = sender
        self._on_embedded = on_embedded

    def embed(
        self, space: Space, texts: Sequence[Input], *, lane: Lane = Lane.INTERACTIVE, truncate: bool = True
    ) -> Embedded:
        """Take the steps of `steps` in this thread, which waits for the sender. Arguments and errors are the same."""
        return finish(self.steps(space, texts, lane=lane, truncate=truncate), self._sender)

    def steps(
        self, space: Space, texts: Sequence[Input], *, lane: Lane = Lane.INTERACTIVE, truncate: bool = True
    ) -> Steps[Embedded]:
        """Vectors for `texts`, or scores for pairs, in the same order and with duplicates.

        Args:
            space: the vector space of the model and its prompt.
            texts: texts, or pairs for a cross-encoder.
            lane: the urgency of the missing texts.
            truncate: if False, a text above the model's limit fails instead of being cut.

        Raises:
            InvalidTextError: a text that has no key; nothing is computed.
            BadInputError: a text for a cross-encoder, or a pair for another model.
            UnavailableError, BackendError, StorageFullError: raised by the sender.
        """
        for item in texts:
            space.check_input(item)
        keys = input_keys(space.key_base, texts)
        found = yield from self._look_up(space, keys)
        started = time.perf_counter()
        done, found = yield from self._compute(space, keys, texts, found, lane)
        waited_s = time.perf_counter() - started if done.outcomes else 0.0
        outcomes, errors = _outcomes(keys, done)
        for i in np.flatnonzero(~found.present).tolist():
            if i not in errors:  # stored and pruned again each time: never answer with a made-up row
                raise UnavailableError(f"the vector of text {i} was pruned before it could be read; try again")
        assert found.vectors is not None  # get_many returns vectors
        self._on_embedded(space, outcomes)
        if not truncate:
            _refuse_truncated(found.truncated.tolist(), outcomes, errors)
        return Embedded(found.vectors, outcomes, errors, found.tokens, found.truncated, waited_s, done.inference_s)

    def _compute(
        self, space: Space, keys: Sequence[bytes], texts: Sequence[Input], found: Found, lane: Lane
    ) -> Steps[tuple[Computed, Found]]:
        """Have the missing texts computed, and again those that were pruned in the meantime."""
        done = Computed(inference_s=0.0)
        for _ in range(_ATTEMPTS):
            absent = [i for i in np.flatnonzero(~found.present).tolist() if keys[i] not in done.errors]
            if not absent:
                break
            done.merge((yield Missing(space, {keys[i]: texts[i] for i in absent}, lane)))
            good = [i for i in absent if keys[i] not in done.errors]
            if good and all(keys[i] in done.vectors for i in good):
                found = found.with_rows(keys, good, done)
            else:
                found = yield from self._look_up(space, keys)
        return done, found

    def _look_up(self, space: Space, keys: Sequence[bytes]) -> Steps[Found]:
        with span("semel.lookup", model=space.model, texts=len(keys)) as lookup:
            found: Found = yield LookUp(self._store, keys, space.dim)
            if is_on():
                lookup.annotate(hits=int(found.present.sum()))
        return found


def _outcomes(keys: Sequence[bytes], done: Computed) -> tuple[list[Outcome], dict[int, ItemError]]:
    outcomes: list[Outcome] = []
    errors: dict[int, ItemError] = {}
    seen: set[bytes] = set()
    for i, key in enumerate(keys):
        outcome = done.outcomes.get(key, Outcome.HIT)
        if outcome is Outcome.COMPUTED and key in seen:
            outcome = Outcome.COALESCED  # an equal text earlier in this call was computed
        if outcome is Outcome.FAILED:
            errors[i] = done.errors[key]
        seen.add(key)
        outcomes.append(outcome)
    return outcomes, errors


def _refuse_truncated(truncated: Sequence[bool], outcomes: list[Outcome], errors: dict[int, ItemError]) -> None:
    error = TextTooLongError()
    for i, cut in enumerate(truncated):
        if cut:
            outcomes[i] = Outcome.FAILED
            errors[i] = ItemError.of(error)
