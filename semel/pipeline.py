"""The whole of semel in one function: key → read → have the missing computed → read again.

Who computes is injected: this process's engine (`LocalSender`) or the workers behind the queue (`QueueSender`).
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np

from semel.cache.keys import input_keys
from semel.cache.store import VectorStore
from semel.errors import BadInputError, TextTooLongError, UnavailableError
from semel.tracing import is_on, span
from semel.values.model import Space
from semel.values.text import Input, ItemError, Lane, Outcome
from semel.values.vectors import Computed, Embedded, Found, Vectors, unit_rows

_ATTEMPTS = 3
"""Two prunes in a row can hardly take what is just computed."""


class Sender(Protocol):
    """Brings missing keys into the cache; returns when each is there or has failed."""

    def compute(self, space: Space, missing: Mapping[bytes, Input], *, lane: Lane) -> Computed: ...


class Pipeline:
    """Texts in, vectors out, each computed once. Thread-safe."""

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
        """Vectors for `texts`, or scores for pairs: order and duplicates kept, hits as they were computed.

        Args:
            truncate: False makes a text above the model's limit fail instead of being cut.

        Raises:
            InvalidTextError: a text that has no key; nothing is computed.
            BadInputError: a text for a cross-encoder, or a pair for another model.
            UnavailableError, BackendError, StorageFullError: from whoever computes.
        """
        for item in texts:
            space.check_input(item)
        keys = input_keys(space.fingerprint, texts)
        found = self._look_up(space, keys)
        started = time.perf_counter()
        done, found = self._compute(space, keys, texts, found, lane)
        waited_s = time.perf_counter() - started
        outcomes, errors = _outcomes(keys, done)
        for i in np.flatnonzero(~found.present).tolist():
            if i not in errors:  # stored, and gone again, and again: never answer with a made-up row
                raise UnavailableError(f"the vector of text {i} vanishes from the cache while it is read; ask again")
        assert found.vectors is not None  # get_many brings vectors
        self._on_embedded(space, outcomes)
        if not truncate:
            _refuse_truncated(found.truncated.tolist(), outcomes, errors)
        return Embedded(found.vectors, outcomes, errors, found.tokens, found.truncated, waited_s, done.inference_s)

    def _compute(
        self, space: Space, keys: Sequence[bytes], texts: Sequence[Input], found: Found, lane: Lane
    ) -> tuple[Computed, Found]:
        """Have computed what was not found; once more what a prune took meanwhile."""
        done = Computed(inference_s=0.0)
        for _ in range(_ATTEMPTS):
            absent = [i for i in np.flatnonzero(~found.present).tolist() if keys[i] not in done.errors]
            if not absent:
                break
            done.merge(self._sender.compute(space, {keys[i]: texts[i] for i in absent}, lane=lane))
            found = self._look_up(space, keys)
        return done, found

    def _look_up(self, space: Space, keys: Sequence[bytes]) -> Found:
        with span("semel.lookup", model=space.model, texts=len(keys)) as looked:
            found = self._store.get_many(keys, dim=space.dim)
            if is_on():
                looked.annotate(hits=int(found.present.sum()))
        return found


def _outcomes(keys: Sequence[bytes], done: Computed) -> tuple[list[Outcome], dict[int, ItemError]]:
    outcomes: list[Outcome] = []
    errors: dict[int, ItemError] = {}
    seen: set[bytes] = set()
    for i, key in enumerate(keys):
        outcome = done.outcomes.get(key, Outcome.HIT)
        if outcome is Outcome.COMPUTED and key in seen:
            outcome = Outcome.COALESCED  # an equal text before it in this call was computed
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


def check_dimensions(dimensions: int | None, space: Space) -> None:
    """Raises BadInputError when the model was not trained to be cut to this size."""
    if dimensions not in (None, space.dim, *space.matryoshka_dims):
        sizes = ", ".join(str(d) for d in sorted({*space.matryoshka_dims, space.dim}))
        raise BadInputError(
            f"model {space.model!r} cannot be cut to {dimensions} dimensions (it offers {sizes}); "
            "if it was trained for it, list the size in its matryoshka_dims in semel.toml"
        )


def cut_dimensions(vectors: Vectors, dimensions: int | None, space: Space) -> Vectors:
    """Matryoshka: the first `dimensions` numbers, scaled to length 1 again; float32 (n, dimensions).

    Raises BadInputError as `check_dimensions`.
    """
    check_dimensions(dimensions, space)
    if dimensions is None or dimensions == space.dim:
        return vectors
    return unit_rows(vectors[:, :dimensions])
